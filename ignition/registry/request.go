package registry

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"atoll/bundle"
)

// kind is what a request is about.
type kind string

const (
	kindPing     kind = "ping"
	kindCatalog  kind = "catalog"
	kindManifest kind = "manifest"
	kindBlob     kind = "blob"
	kindUpload   kind = "upload"
	kindTags     kind = "tags"
)

// target is what the path of a request names.
type target struct {
	kind kind
	// host is the upstream registry of an image of the bundle; empty for what is stored here.
	host string
	// repo is the repository: in the upstream registry, or NAMESPACE/NAME.
	repo string
	// ref is a tag or a digest of a manifest, the digest of a blob, or the ID of an upload,
	// which is empty for a new one.
	ref string
}

var (
	errNotAPI = errors.New("not a path of the OCI distribution API that is served here")

	// namespaceName is what Kubernetes takes for a namespace's name (RFC 1123, 2.1).
	namespaceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	uploadID      = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// parseTarget reads the path of a request. It is strict, so that nothing behind it can take
// the path for another one. The error is errNotAPI, or says what is wrong with a name.
func parseTarget(u *url.URL) (target, error) {
	if strings.Contains(strings.ToLower(u.EscapedPath()), "%2f") {
		return target{}, errors.New("a slash in a name is written as it is")
	}
	p, ok := strings.CutPrefix(u.Path, "/v2")
	if !ok {
		return target{}, errNotAPI
	}
	switch p {
	case "", "/":
		return target{kind: kindPing}, nil
	case "/_catalog":
		return target{kind: kindCatalog}, nil
	}
	parts := strings.Split(p, "/")[1:] // p starts with a slash, or its first part is taken for no name
	if p[0] != '/' || len(parts) < 3 {
		return target{}, errNotAPI
	}
	name, t := parts, target{}
	switch last, before := parts[len(parts)-1], parts[len(parts)-2]; {
	case before == "manifests":
		name, t = parts[:len(parts)-2], target{kind: kindManifest, ref: last}
	case before == "tags" && last == "list":
		name, t = parts[:len(parts)-2], target{kind: kindTags}
	case before == "uploads" && len(parts) > 3 && parts[len(parts)-3] == "blobs":
		name, t = parts[:len(parts)-3], target{kind: kindUpload, ref: last}
	case before == "blobs" && last == "uploads":
		name, t = parts[:len(parts)-2], target{kind: kindUpload}
	case before == "blobs":
		name, t = parts[:len(parts)-2], target{kind: kindBlob, ref: last}
	default:
		return target{}, errNotAPI
	}
	if err := t.checkRef(); err != nil {
		return target{}, err
	}
	var err error
	t.host, t.repo, err = parseName(strings.Join(name, "/"))
	return t, err
}

func (t target) checkRef() error {
	switch t.kind {
	case kindManifest:
		if reference.TagRegexp.FindString(t.ref) == t.ref && t.ref != "" {
			return nil
		}
		if _, err := digest.Parse(t.ref); err != nil {
			return fmt.Errorf("%q is neither a tag nor a digest", t.ref)
		}
	case kindBlob:
		if _, err := digest.Parse(t.ref); err != nil {
			return fmt.Errorf("%q is not a digest", t.ref)
		}
	case kindUpload:
		if t.ref != "" && !uploadID.MatchString(t.ref) {
			return fmt.Errorf("%q is not the ID of an upload", t.ref)
		}
	}
	return nil
}

// parseName reads the name of a repository: HOST/PATH of an upstream registry whose
// images are in the bundle, or NAMESPACE/NAME, for which host is empty.
func parseName(name string) (host, repo string, err error) {
	if _, err := reference.WithName(name); err != nil {
		return "", "", fmt.Errorf("%q is not the name of a repository: %w", name, err)
	}
	name, prefixed := strings.CutPrefix(name, bundle.BundlePrefix+"/")
	first, rest, _ := strings.Cut(name, "/")
	if strings.ContainsAny(first, ".:") && rest != "" {
		canonical, err := bundle.CanonicalReference(name)
		if err != nil {
			return "", "", err
		}
		host, repo, _, _, err = bundle.SplitReference(canonical)
		if err == nil && host == "" {
			err = fmt.Errorf("%q is not the name of a registry", first)
		}
		return host, repo, err
	}
	if prefixed || rest == "" || !namespaceName.MatchString(first) {
		return "", "", fmt.Errorf("%q is not a name here: images are NAMESPACE/NAME, and HOST/NAME those of the appliance, like docker.io/library/python", name)
	}
	return "", name, nil
}

// namespace is the namespace whose repository it is.
func (t target) namespace() string {
	ns, _, _ := strings.Cut(t.repo, "/")
	return ns
}

// path is the one path of the target within its registry.
func (t target) path() string {
	switch t.kind {
	case kindPing:
		return "/v2/"
	case kindCatalog:
		return "/v2/_catalog"
	case kindManifest:
		return "/v2/" + t.repo + "/manifests/" + t.ref
	case kindBlob:
		return "/v2/" + t.repo + "/blobs/" + t.ref
	case kindUpload:
		return "/v2/" + t.repo + "/blobs/uploads/" + t.ref
	}
	return "/v2/" + t.repo + "/tags/list"
}

// String is the image, as people write it.
func (t target) String() string {
	s := t.repo
	if t.host != "" {
		s = t.host + "/" + t.repo
	}
	switch {
	case t.kind != kindManifest:
		return s
	case strings.Contains(t.ref, ":"):
		return s + "@" + t.ref
	}
	return s + ":" + t.ref
}
