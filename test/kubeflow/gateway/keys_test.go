package gateway

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// dexDB is where Dex keeps its keys here. See fitLab.
func (m *mesh) dexDB() string { return filepath.Join(m.dir, "dex.db") }

// signedIn returns an error unless a browser passes the gateway.
func (m *mesh) signedIn(t *testing.T, b *browser) error {
	t.Helper()
	m.echo.take()
	p := b.get(t, "https://node/jupyter/x")
	got := m.echo.take()
	if p.status != http.StatusOK || len(got) != 1 || !slices.Contains(got[0].identity(), user) {
		return fmt.Errorf("answer %d: %s; the service saw %+v", p.status, p.body, got)
	}
	return nil
}

// TestKeysOfLateDex: the gateway learns the keys of a Dex that starts after it, as after
// each boot, with no help of istiod, which asks Dex once when it writes the gateway's
// configuration, then in longer and longer intervals.
func TestKeysOfLateDex(t *testing.T) {
	m := newMesh(t, render(t, "oauth2-proxy"))
	m.startGateway(t)
	m.stop("pilot-discovery")
	m.startSignIn(t)
	b := newBrowser(t)
	b.signIn(t, "https://node/", password)
	m.await(t, "the gateway to know Dex's keys", func() error { return m.signedIn(t, b) })
}

// TestNewKeys: Dex changes its keys every few hours, and signs with a new one at once.
func TestNewKeys(t *testing.T) {
	m := startMesh(t, render(t, "oauth2-proxy"))
	b := newBrowser(t)
	b.signIn(t, "https://node/", password)
	if err := m.signedIn(t, b); err != nil {
		t.Fatal(err)
	}
	m.stop("pilot-discovery")
	m.stop("dex")
	if err := os.Remove(m.dexDB()); err != nil {
		t.Fatal(err)
	}
	m.startDex(t)
	b = newBrowser(t)
	b.signIn(t, "https://node/", password)
	m.await(t, "the gateway to know Dex's new keys", func() error { return m.signedIn(t, b) })
}
