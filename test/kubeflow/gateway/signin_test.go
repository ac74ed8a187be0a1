package gateway

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
)

// signIn are the services that run for real.
var signIn = map[string]bool{
	"dex.auth.svc.cluster.local":                  true,
	"authservice.istio-system.svc.cluster.local":  true,
	"oauth2-proxy.oauth2-proxy.svc.cluster.local": true,
}

// startSignIn runs Dex, and what signs people in, as their manifests say, but for the
// addresses that they listen at: all pods have one network here.
func (m *mesh) startSignIn(t *testing.T) {
	t.Helper()
	m.startDex(t)
	m.startAuth(t)
}

// startDex runs Dex, and waits for it.
func (m *mesh) startDex(t *testing.T) {
	t.Helper()
	dex := m.podOf(t, "Deployment", "auth", "dex", filepath.Join(m.dir, "dex"))
	m.run(t, "dex", dex)
	m.await(t, "dex", func() error {
		resp, err := http.Get("http://" + m.ip["dex.auth.svc.cluster.local"] + ":5556/dex/healthz")
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
}

// startAuth runs AuthService's stand-in or oauth2-proxy, and waits for it.
func (m *mesh) startAuth(t *testing.T) {
	t.Helper()
	url := ""
	switch m.auth {
	case "authservice":
		p := m.podOf(t, "StatefulSet", "istio-system", "oidc-authservice", filepath.Join(m.dir, "authservice"))
		ip := m.ip["authservice.istio-system.svc.cluster.local"]
		p.env["SERVER_HOSTNAME"], p.env["READINESS_PROBE_PORT"] = ip, "18081"
		p.env["OIDC_STATE_STORE_PATH"] = filepath.Join(filepath.Dir(p.env["SESSION_STORE_PATH"]), "oidc_state.db")
		m.run(t, "authservice", p)
		url = "http://" + ip + ":18081/"
	case "oauth2-proxy":
		p := m.podOf(t, "Deployment", "oauth2-proxy", "oauth2-proxy", filepath.Join(m.dir, "oauth2-proxy"))
		ip := m.ip["oauth2-proxy.oauth2-proxy.svc.cluster.local"]
		p.args[0] = "--http-address=" + ip + ":80"
		m.run(t, "oauth2-proxy", p)
		url = "http://" + ip + "/ready"
	}
	m.await(t, m.auth, func() error {
		resp, err := http.Get(url)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s answers %s", url, resp.Status)
		}
		return err
	})
}
