package bundle

import (
	"fmt"

	"github.com/distribution/reference"
)

// NodeRegistry is the registry on the node that its users push to. What is named there is
// made on the node: no bundle brings it.
const NodeRegistry = "registry.atoll.svc.cluster.local"

// BundlePrefix is another first part of the names that the bundle's images have in
// NodeRegistry: BundlePrefix/docker.io/library/python. Kaniko's registry map needs one that is
// not like a host's (it takes docker.io/… for the registry itself), and no namespace has a "_":
//
//	KANIKO_REGISTRY_MAP=index.docker.io=registry.atoll.svc.cluster.local/bundle_images/docker.io
const BundlePrefix = "bundle_images"

// CanonicalReference gives an image's full name, the way containerd asks for it:
// "busybox" is docker.io/library/busybox:latest. A reference with a tag and a
// digest keeps both. Docker Hub's other host names are its first one.
func CanonicalReference(s string) (string, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return "", fmt.Errorf("parsing image reference %q: %w", s, err)
	}
	if reference.Domain(named) == "registry-1.docker.io" {
		return CanonicalReference("docker.io/" + s[len("registry-1.docker.io/"):])
	}
	return reference.TagNameOnly(named).String(), nil
}

// SplitReference cuts a canonical reference into registry host, repository, tag
// and digest; tag or digest is empty where there is none.
func SplitReference(s string) (host, repository, tag, digest string, err error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return "", "", "", "", fmt.Errorf("parsing image reference %q: %w", s, err)
	}
	if t, ok := named.(reference.Tagged); ok {
		tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		digest = d.Digest().String()
	}
	return reference.Domain(named), reference.Path(named), tag, digest, nil
}
