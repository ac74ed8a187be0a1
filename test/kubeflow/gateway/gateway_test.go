package gateway

import (
	"net/http"
	"os"
	"slices"
	"testing"
)

// eachAuth runs a test for each way to sign in.
func eachAuth(t *testing.T, test func(t *testing.T, m *mesh)) {
	for _, auth := range []string{"authservice", "oauth2-proxy"} {
		t.Run(auth, func(t *testing.T) { test(t, startMesh(t, render(t, auth))) })
	}
}

func TestSignIn(t *testing.T) {
	eachAuth(t, func(t *testing.T, m *mesh) {
		for _, scheme := range []string{"https", "http"} {
			t.Run(scheme, func(t *testing.T) {
				b := newBrowser(t)
				if p := b.signIn(t, scheme+"://node/", "wrong"); p.status == http.StatusOK && len(m.echo.take()) > 0 {
					t.Errorf("a wrong password leads to %s, %d", p.url, p.status)
				}
				p := b.signIn(t, scheme+"://node/?ns=a", password)
				got := m.echo.take()
				if p.status != http.StatusOK || len(got) != 1 || !slices.Contains(got[0].identity(), user) || got[0].URI != "/?ns=a" {
					t.Fatalf("signed in at %s, %d:\n%s\nthe service saw %+v", p.url, p.status, p.body, got)
				}
				if p.url.Scheme != "https" {
					t.Errorf("ends at %s", p.url)
				}
				p = b.get(t, "http://node/pipeline/x?y=z")
				if p.status != http.StatusMovedPermanently || p.header.Get("Location") != "https://node/pipeline/x?y=z" {
					t.Errorf("signed in, http:// gets %d to %s", p.status, p.header.Get("Location"))
				}
			})
		}
	})
}

func TestDump(t *testing.T) {
	m := startMesh(t, render(t, "authservice"))
	_ = m
	os.WriteFile("/tmp/signin/dump.json", admin(t, "/config_dump"), 0o600)
	b := newBrowser(t)
	for _, u := range []string{"http://node/", "https://node/", "https://node/dex/x", "https://node/dex%2Fx"} {
		p := b.get(t, u)
		t.Log(u, p.status, p.header, p.body)
	}
	req, _ := http.NewRequest("OPTIONS", "https://node/jupyter/x", nil)
	req.Header.Set("kubeflow-userid", "admin@evil")
	p := b.do(t, req)
	t.Log(p.status, p.header, p.body)
	t.Fail()
}
