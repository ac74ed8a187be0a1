package images

import (
	"slices"
	"strings"
	"testing"

	"atoll/bundle"
)

func TestRegistryHost(t *testing.T) {
	for in, want := range map[string]string{
		"quay.io": "quay.io", "REG:5100": "reg:5100", "[2001:DB8::7]:5000": "[2001:db8::7]:5000",
		"docker.io": "docker.io", "Docker.io": "docker.io", "index.docker.io": "docker.io", "registry-1.docker.io": "docker.io",
		"https://docker.io": `"https://docker.io" is a URL`, "http://reg": "is a URL", "": "is no HOST", "quay.io/a": "is no HOST", "a b": "is no HOST",
		"reg:port": "is no HOST", "u:s3cret@reg.test": `docker login reg.test"`, "https://u:s3cret@reg.test/": `docker login reg.test"`,
	} {
		got, err := RegistryHost(in)
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
		checkNoSecret(t, err)
	}
}

func TestParseMirror(t *testing.T) {
	for _, to := range []string{"https://reg.test", "http://10.0.0.7:5000/a+b", "https://[::1]:5000/x/", "https://reg.test/@scope"} {
		if host, u, err := ParseMirror("Index.docker.io", to); err != nil || host != "docker.io" || u.String() != to {
			t.Errorf("%s: got %s, %v, %v", to, host, u, err)
		}
	}
	const login = `credentials do not go into the URL: log in with "docker login `
	for to, want := range map[string]string{
		"reg.test": "not a URL like", "": "not a URL like", "ftp://reg.test": "not a URL like", "https://": "not a URL like", "https://reg.test/?token=s3cret": "not a URL like",
		"https://u:s3cret@reg.test:5000/x": login + `reg.test:5000"`, "https://s3cret@reg.test": login + `reg.test"`, "u:s3cret@reg.test": login + `reg.test"`,
		"https://u:s3cret/%zz@reg.test?x": login + `reg.test"`, "https://u:s3cret@": login + `HOST"`,
	} {
		_, _, err := ParseMirror("docker.io", to)
		if err == nil || !strings.Contains(err.Error(), "mirror of docker.io: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", to, err, want)
		}
		checkNoSecret(t, err)
	}
}

// TestNamesOfDockerHub: any of them names it in the options, and errors call it by one.
func TestNamesOfDockerHub(t *testing.T) {
	for _, key := range append([]string{"Docker.IO"}, hubHosts...) {
		c, err := newClient(&Options{Mirrors: map[string]string{key: "https://m.test/hub"}})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := c.repository("docker.io/library/x:1"); err != nil || r.base != "https://m.test/v2/hub/library/x/" || r.host != "m.test" {
			t.Errorf("%s: got %+v, %v", key, r, err)
		}
		if c, err = newClient(&Options{PlainHTTP: []string{key}}); err != nil {
			t.Fatal(err)
		}
		if r, err := c.repository("docker.io/library/x:1"); err != nil || r.base != "http://index.docker.io/v2/library/x/" || r.host != "docker.io" {
			t.Errorf("%s: got %+v, %v", key, r, err)
		}
	}
	if _, err := newClient(&Options{Mirrors: map[string]string{"docker.io": "https://a.test", "index.docker.io": "https://b.test"}}); err == nil || !strings.Contains(err.Error(), "docker.io: there are two") {
		t.Errorf("two mirrors of one host: got %v", err)
	}
	c, err := newClient(&Options{Mirrors: map[string]string{"reg.example": "https://m.test"}})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.repository("REG.Example/x:1"); err != nil || r.host != "m.test" {
		t.Errorf("a host in capitals: got %+v, %v", r, err)
	}
}

func TestNeedless(t *testing.T) {
	o := &Options{
		Mirrors:   map[string]string{"index.docker.io": "https://m.test", "quay.oi": "https://m.test", "ghcr.io": "https://m.test", "github.com": "https://git.test", "a.test": "https://m.test", "k3s.test:8443": "https://m.test"},
		PlainHTTP: []string{"QUAY.io", "m.test", "registry.test:5000", "registry.test:5000"},
	}
	images := []string{"docker.io/library/x:1", "quay.io/a:1", "quay.io/b:1", "GHCR.io/a:1"}
	mirrors, plain, asked := o.Needless(&bundle.Definition{K3s: bundle.K3s{Release: "https://k3s.test:8443/k3s"}}, images, []bundle.Source{{Repository: "https://github.com/a/b", Ref: "v1"}})
	if want := []string{"a.test", "quay.oi"}; !slices.Equal(mirrors, want) {
		t.Errorf("mirrors: got %q, want %q", mirrors, want)
	}
	if want := []string{"registry.test:5000"}; !slices.Equal(plain, want) {
		t.Errorf("plain: got %q, want %q", plain, want)
	}
	if want := []string{"docker.io", "ghcr.io", "github.com", "k3s.test:8443", "quay.io"}; !slices.Equal(asked, want) {
		t.Errorf("asked: got %q, want %q", asked, want)
	}
}
