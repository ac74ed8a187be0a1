package bundle

import (
	"fmt"

	"github.com/distribution/reference"
)

// NodeRegistry is the registry on the node that its users push to. What is named there is
// made on the node: no bundle brings it.
const NodeRegistry = "registry.atoll.svc.cluster.local"

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
