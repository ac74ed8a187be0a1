package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
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
				p := b.signIn(t, scheme+"://node/", "wrong")
				m.wantNothing(t, fmt.Sprintf("a wrong password, which leads to %s, %d", p.url, p.status))
				if b.session(t) != "" {
					t.Errorf("a session after a wrong password, which leads to %s, %d", p.url, p.status)
				}
				p = b.signIn(t, scheme+"://node/?ns=a", password)
				got := m.echo.take()
				if p.status != http.StatusOK || len(got) != 1 || !slices.Contains(got[0].identity(), user) || got[0].URI != "/?ns=a" {
					t.Fatalf("signed in at %s, %d:\n%s\nthe service saw %+v", p.url, p.status, p.body, got)
				}
				if b.session(t) == "" {
					t.Error("no session after the password")
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

// TestSignOut does what the dashboard's button does: it opens the page that the dashboard's
// settings name (kubeflow/kubeflow#7654). The script of AuthService's page runs in
// [TestChromium]; what it asks for is asked for here.
func TestSignOut(t *testing.T) {
	eachAuth(t, func(t *testing.T, m *mesh) {
		b := newBrowser(t)
		b.signIn(t, "https://node/", password)
		cookie := b.cookies(t)
		m.echo.take()
		status, _ := send(t, httpsPort, "GET /jupyter/x HTTP/1.1\r\nhost: node\r\ncookie: "+cookie+"\r\n\r\n")
		if got := m.echo.take(); len(got) != 1 {
			t.Fatalf("signed in, %d", status)
		}

		dashboard := m.podOf(t, "Deployment", "kubeflow", "centraldashboard", t.TempDir())
		p := b.get(t, "https://node"+dashboard.env["LOGOUT_URL"])
		switch {
		case m.auth == "authservice":
			if p.status != http.StatusOK {
				t.Fatalf("%s: %d\n%s", p.url, p.status, p.body)
			}
			p = b.endSession(t)
		case p.status != http.StatusFound:
			t.Errorf("%s: %d\n%s", p.url, p.status, p.body)
		}
		p = b.follow(t, p)
		if !strings.HasPrefix(p.url.Path, "/dex/auth") && !strings.Contains(p.body, "/oauth2/start") {
			t.Errorf("ends at %s, %d:\n%s", p.url, p.status, p.body)
		}
		status, _ = send(t, httpsPort, "GET /jupyter/x HTTP/1.1\r\nhost: node\r\ncookie: "+b.cookies(t)+"\r\n\r\n")
		m.wantRefused(t, fmt.Sprintf("after signing out, %d", status), status)
		if m.auth == "authservice" {
			status, _ := send(t, httpsPort, "GET /jupyter/x HTTP/1.1\r\nhost: node\r\ncookie: "+cookie+"\r\n\r\n")
			m.wantRefused(t, fmt.Sprintf("with the old cookie, %d", status), status)
		}
	})
}

// TestSessionCookies: they are Secure. AuthService's must not be HttpOnly: its page for
// signing out reads it.
func TestSessionCookies(t *testing.T) {
	eachAuth(t, func(t *testing.T, m *mesh) {
		b := newBrowser(t)
		b.signIn(t, "https://node/", password)
		found := 0
		for _, c := range b.set {
			if !c.Secure {
				t.Errorf("%s is not Secure: %s", c.Name, c.Raw)
			}
			session := slices.Contains(sessions, c.Name)
			if session && c.HttpOnly == (m.auth == "authservice") {
				t.Errorf("HttpOnly of %s is %v", c.Name, c.HttpOnly)
			}
			if session {
				found++
			}
		}
		if found == 0 {
			t.Error("no session's cookie")
		}
	})
}
