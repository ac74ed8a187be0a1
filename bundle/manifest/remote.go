package manifest

import (
	"net/url"
	"path"
	"regexp"
	"strings"

	"atoll/bundle"
)

// address takes apart what kustomize takes for a repository: an optional git::, a scheme
// or user@, a host, and a path. https://github.com/kubernetes-sigs/kustomize/blob/master/examples/remoteBuild.md
var address = regexp.MustCompile(`(?i)^(?:git::)?(?:[a-z][a-z0-9+.-]*://)?(?:[^/@]+@)?([^/:]+)[/:](.*)$`)

// within gives the path in a source that a URL stands for; false if it is not the
// source's, or is at another ref.
func within(s bundle.Source, remote string) (string, bool) {
	if s.URL != "" {
		return path.Base(s.URL), remote == s.URL
	}
	remote, query, _ := strings.Cut(remote, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", false
	}
	ref := values.Get("ref")
	if ref == "" {
		ref = values.Get("version")
	}
	if ref == "" || ref != s.Ref && ref != s.Commit {
		return "", false
	}
	host, at, ok := split(remote)
	repoHost, repo, repoOK := split(s.Repository)
	if !ok || !repoOK || !strings.EqualFold(host, repoHost) {
		return "", false
	}
	rest, ok := strings.CutPrefix(at, repo)
	rest = strings.TrimPrefix(rest, ".git")
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return path.Clean("/" + rest)[1:], true
}

func split(remote string) (host, at string, ok bool) {
	m := address.FindStringSubmatch(remote)
	if m == nil {
		return "", "", false
	}
	return m[1], strings.Trim(m[2], "/"), true
}
