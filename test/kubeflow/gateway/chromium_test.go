package gateway

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	chromium "atoll/test/browser"
)

// TestChromium signs in as a person does, with a real browser.
func TestChromium(t *testing.T) {
	eachAuth(t, func(t *testing.T, m *mesh) {
		site := chromium.Site{Host: "node", User: user, Password: password}
		if m.auth == "authservice" {
			site = site.AuthService()
		} else {
			site = site.OAuth2Proxy()
		}
		dashboard := m.podOf(t, "Deployment", "kubeflow", "centraldashboard", m.dir)
		if got := dashboard.env["LOGOUT_URL"]; got != site.SignOut {
			t.Errorf("the dashboard's button leads to %s, want %s", got, site.SignOut)
		}
		// As through "atoll boot --forward 8443:443".
		t.Run("another port", func(t *testing.T) {
			site := site
			site.Host = "node:8443"
			site.CheckSession(m.chromium(t), func() {})
		})
		restart := func() {
			m.stop("dex")
			m.stop(m.auth)
			m.startSignIn(t) // for all of this test
		}
		t.Run("https", func(t *testing.T) { site.CheckSession(m.chromium(t), restart) })
		t.Run("http", func(t *testing.T) { site.CheckPlain(m.chromium(t)) })
	})
}

// chromium starts a browser that knows the gateway and nothing else. Its pictures are kept
// in the folder that ATOLL_PICTURES names, if it does.
func (m *mesh) chromium(t *testing.T) *chromium.Browser {
	t.Helper()
	cert, err := chromium.Certificate(t.Context(), httpsPort, "node")
	if err != nil {
		t.Fatal(err)
	}
	o := chromium.Options{
		Hosts:        map[string]string{"node:80": httpPort, "node:443": httpsPort, "node:8443": httpsPort},
		Certificates: []*x509.Certificate{cert},
	}
	if dir := os.Getenv("ATOLL_PICTURES"); dir != "" {
		o.Pictures = filepath.Join(dir, t.Name())
	}
	return chromium.Start(t.Context(), t, o)
}
