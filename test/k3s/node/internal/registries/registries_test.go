package registries

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const sample = `
mirrors:
  docker.io:
    endpoint: ["http://127.0.0.1:5000"]
  registry.example:5000:
    endpoint: [mirror.example, "https://other.example/proxy/v2"]
  "*":
configs:
  mirror.example:
    tls: {ca_file: /ca.pem, insecure_skip_verify: true}
  plain.example:
    tls: {cert_file: /c.pem, key_file: /k.pem}
`

func TestHosts(t *testing.T) {
	r, err := Parse("registries.yaml", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	off := "server = \"" + noServer + "\"\ncapabilities = [\"push\"]\n"
	docker := "\n[host.\"http://127.0.0.1:5000/v2\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	example := "\n[host.\"https://mirror.example/v2\"]\n  capabilities = [\"pull\", \"resolve\"]\n" +
		"  ca = [\"/ca.pem\"]\n  skip_verify = true\n" +
		"\n[host.\"https://other.example/proxy/v2\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	tls := "ca = [\"/ca.pem\"]\nskip_verify = true\n"
	plain := "client = [[\"/c.pem\", \"/k.pem\"]]\n"
	for _, tc := range []struct {
		noDefault bool
		want      map[string]string
	}{
		{true, map[string]string{"docker.io": off + docker, "registry.example_5000_": off + example, "_default": off,
			"mirror.example": tls, "plain.example": plain}},
		{false, map[string]string{"docker.io": docker, "registry.example_5000_": example, "_default": "",
			"mirror.example": tls, "plain.example": plain}},
	} {
		got, err := r.Hosts(tc.noDefault, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(tc.want) {
			t.Errorf("noDefault %v: got folders %v", tc.noDefault, got)
		}
		for dir, want := range tc.want {
			if got[dir] != want {
				t.Errorf("noDefault %v, %s:\ngot  %q\nwant %q", tc.noDefault, dir, got[dir], want)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct{ yaml, want string }{
		{"mirror: {}\n", "field mirror not found"},
		{"mirrors: {a: {endpoint: ['ftp://x']}}\n", "mirrors.a.endpoint[0]"},
		{"mirrors: {a: {rewrite: {'(': x}}}\n", "mirrors.a.rewrite"},
	} {
		if _, err := Parse("r.yaml", []byte(tc.yaml)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want an error with %q", tc.yaml, err, tc.want)
		}
	}
}

func TestRewriteProxy(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path)
	}))
	defer upstream.Close()
	proxy, err := newRewriteProxy(upstream.URL+"/v2", Mirror{Rewrites: map[string]string{"^library/(.*)": "mirror/$1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(proxy)
	defer server.Close()
	for in, want := range map[string]string{
		"/v2/":                                "/v2/",
		"/v2/library/busybox/manifests/1.0":   "/v2/mirror/busybox/manifests/1.0",
		"/v2/other/busybox/blobs/sha256:0123": "/v2/other/busybox/blobs/sha256:0123",
	} {
		resp, err := http.Get(server.URL + in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", in, got, err, want)
		}
	}
}
