package registry

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	const sum = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	const id = "0f0e0d0c-0b0a-0908-0706-050403020100"
	for _, tc := range []struct {
		path string
		want target
	}{
		{"/v2", target{kind: kindPing}},
		{"/v2/", target{kind: kindPing}},
		{"/v2/_catalog", target{kind: kindCatalog}},
		{"/v2/a/b/tags/list", target{kind: kindTags, repo: "a/b"}},
		{"/v2/a/b/manifests/v1.0", target{kind: kindManifest, repo: "a/b", ref: "v1.0"}},
		{"/v2/a/b/manifests/" + sum, target{kind: kindManifest, repo: "a/b", ref: sum}},
		{"/v2/a/b/manifests/sha256%3A" + sum[7:], target{kind: kindManifest, repo: "a/b", ref: sum}},
		{"/v2/a/b/blobs/" + sum, target{kind: kindBlob, repo: "a/b", ref: sum}},
		{"/v2/a/b/blobs/uploads/", target{kind: kindUpload, repo: "a/b"}},
		{"/v2/a/b/blobs/uploads", target{kind: kindUpload, repo: "a/b"}},
		{"/v2/a/b/blobs/uploads/" + id, target{kind: kindUpload, repo: "a/b", ref: id}},
		// Parts of names may look like parts of the API.
		{"/v2/a/manifests/tags/list", target{kind: kindTags, repo: "a/manifests"}},
		{"/v2/a/blobs/uploads/manifests/x", target{kind: kindManifest, repo: "a/blobs/uploads", ref: "x"}},
		{"/v2/blobs/uploads/blobs/uploads/", target{kind: kindUpload, repo: "blobs/uploads"}},
		{"/v2/docker.io/busybox/manifests/x", target{kind: kindManifest, host: "docker.io", repo: "library/busybox", ref: "x"}},
		{"/v2/registry-1.docker.io/library/busybox/manifests/x", target{kind: kindManifest, host: "docker.io", repo: "library/busybox", ref: "x"}},
		{"/v2/r.example:5000/a/b/manifests/x", target{kind: kindManifest, host: "r.example:5000", repo: "a/b", ref: "x"}},
		{"/v2/bundle_images/ghcr.io/a/b/manifests/x", target{kind: kindManifest, host: "ghcr.io", repo: "a/b", ref: "x"}},
	} {
		u, err := url.Parse(tc.path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseTarget(u)
		if err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v, want %+v", tc.path, got, err, tc.want)
		}
	}
	for _, p := range []string{
		"", "/", "/v1/", "/v2x", "/v2x/a/b/tags/list", "v2/a/b/tags/list", "//v2/a/b/tags/list", "/v2//a/b/tags/list", "/v2/a//b/tags/list",
		"/v2/a/tags/list", "/v2/tags/list", "/v2/a/b", "/v2/a/b/tags/list/", "/v2/a/b/manifests/", "/v2/a/b/manifests/.x", "/v2/a/b/manifests/x/y",
		"/v2/a/b/blobs/", "/v2/a/b/blobs/x", "/v2/a/b/blobs/sha256:x", "/v2/a/b/blobs/uploads/..", "/v2/a/b/blobs/uploads/x", "/v2/a/b/referrers/" + sum,
		"/v2/A/b/tags/list", "/v2/a/B/tags/list", "/v2/a_b/c/tags/list", "/v2/-a/b/tags/list", "/v2/" + strings.Repeat("a", 64) + "/b/tags/list",
		"/v2/a/../b/tags/list", "/v2/a/%2e%2e/b/tags/list", "/v2/a%2fb/tags/list", "/v2/a%2Fb/c/tags/list", "/v2/a/b%00/tags/list", "/v2/a/b /tags/list",
		"/v2/a/" + strings.Repeat("b", 300) + "/tags/list", "/v2/bundle_images/a/b/tags/list", "/v2/bundle_images/bundle_images/docker.io/b/tags/list",
		"/v2/docker.io/tags/list", "/v2/a_b.c/d/tags/list", "/v2/docker.io/../a/b/tags/list", "/v2/docker.io/A/tags/list", "/v2/[::1]:80/../tags/list", "/v2/a/b:c/tags/list",
	} {
		u := &url.URL{Path: p}
		if strings.Contains(p, "%") {
			var err error
			if u, err = url.Parse(p); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := parseTarget(u); err == nil {
			t.Errorf("%s: %+v", p, got)
		}
	}
}

// What is authorized is what Distribution or the bundle's registry is asked for: a path that means
// the same to everybody, below the namespace.
func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{
		"/v2/a/b/manifests/x", "/v2/a/b/blobs/uploads/", "/v2/a/../b/c/blobs/uploads/", "/v2/a%2f..%2fb/tags/list", "/v2/docker.io/library/x/manifests/y",
		"/v2/bundle_images/ghcr.io/x/y/manifests/z", "/v2/r.example:5000/x/tags/list", "/v2/_catalog", "/v2/a/manifests/tags/list", "/v2/[::1]/a/tags/list",
		"/v2/a/b/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "/v2/A/b/tags/list", "/v2/a/b/manifests/sha256%3ae3b0", "/v2/0_0.0/0/manifests/0",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.ParseRequestURI(s)
		if err != nil {
			return
		}
		got, err := parseTarget(u)
		if err != nil {
			return
		}
		p := got.path()
		if path.Clean(p) != strings.TrimSuffix(p, "/") || strings.ContainsAny(p, "%\\?#") || strings.ToLower(got.repo) != got.repo {
			t.Errorf("%q is served as %q", s, p)
		}
		if len(got.repo)+len(got.host) > 300 || len(got.ref) > 256 {
			t.Errorf("%q has a long name", s)
		}
		if got.host != "" || got.repo == "" {
			return
		}
		again, err := parseTarget(&url.URL{Path: p})
		if err != nil || again != got {
			t.Errorf("%q is %+v, and served as %q it is %+v, %v", s, got, p, again, err)
		}
		if ns := got.namespace(); !namespaceName.MatchString(ns) || !strings.HasPrefix(p, "/v2/"+ns+"/") {
			t.Errorf("%q is of namespace %q, and served as %q", s, ns, p)
		}
	})
}
