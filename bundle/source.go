package bundle

import (
	"net/url"
	"strings"
)

// Source is a tree of manifests, or one file of them, that a stack takes from
// elsewhere: a git repository at a commit, or a URL.
type Source struct {
	// Name tells it apart, like kubeflow-manifests.
	Name string `yaml:"name"`
	// Repository is a git repository's URL, without ".git".
	Repository string `yaml:"repository,omitempty"`
	// Ref is the tag or branch that manifests call the commit by.
	Ref string `yaml:"ref,omitempty"`
	// Commit is what is fetched; the ref if it is empty.
	Commit string `yaml:"commit,omitempty"`
	// Tree is the commit's git tree hash (sha1, hexadecimal). A source without one is
	// locked as it is first seen.
	Tree string `yaml:"tree,omitempty"`
	// Path is the one folder of the repository that is kept. Empty keeps all.
	Path string `yaml:"path,omitempty"`
	// URL is that of a file, in place of a repository.
	URL string `yaml:"url,omitempty"`
	// SHA256 is the file's checksum, where upstream publishes one (hexadecimal).
	SHA256 string `yaml:"sha256,omitempty"`
}

// Stated says that the stack states what the source must be: a tree hash or a checksum. A
// commit does not, since an archive cannot be held against it. What is not stated is locked
// at first sight.
func (s Source) Stated() bool {
	if s.URL != "" {
		return s.SHA256 != ""
	}
	return s.Tree != ""
}

// Archive is the URL to fetch: that of the file, or of the repository's archive at the
// commit or, without one, at the tag. GitHub and Gitea serve it there.
func (s Source) Archive() string {
	if s.URL != "" {
		return s.URL
	}
	at := s.Commit
	if at == "" {
		at = "refs/tags/" + s.Ref
	}
	// A plus is legal in a path, but stands for a space where a server is careless.
	at = strings.ReplaceAll((&url.URL{Path: at}).EscapedPath(), "+", "%2B")
	return strings.TrimSuffix(s.Repository, "/") + "/archive/" + at + ".tar.gz"
}
