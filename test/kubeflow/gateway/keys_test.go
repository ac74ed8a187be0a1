package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

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

// TestPowerCut: who was signed in passes afterwards, and others can sign in. Dex starts after
// istiod and the gateway, which learns its keys by itself: istiod, which asks for them in
// longer and longer intervals, is not needed.
func TestPowerCut(t *testing.T) {
	m := startMesh(t, render(t, "oauth2-proxy"))
	before := newBrowser(t)
	before.signIn(t, "https://node/", password)

	for _, name := range []string{"pilot-agent", "pilot-discovery", "oauth2-proxy", "dex"} {
		m.stop(name)
	}
	m.startGateway(t)
	m.stop("pilot-discovery")
	m.startSignIn(t)

	after := newBrowser(t)
	after.signIn(t, "https://node/", password)
	for who, b := range map[string]*browser{"signed in before": before, "signed in after it": after} {
		m.await(t, "who "+who+" to pass", func() error { return m.signedIn(t, b) })
	}
}

// TestNewKeys: while Dex is away, who is signed in passes. The gateway learns the keys that
// Dex changes to, without istiod.
func TestNewKeys(t *testing.T) {
	m := startMesh(t, render(t, "oauth2-proxy"))
	b := newBrowser(t)
	b.signIn(t, "https://node/", password)
	m.await(t, "the gateway to know Dex's keys", func() error { return m.signedIn(t, b) })

	m.stop("pilot-discovery")
	m.stop("dex")
	before := failedFetches(t)
	m.await(t, "the gateway to ask Dex in vain", func() error {
		if failedFetches(t) == before {
			return errors.New("not asked")
		}
		return nil
	})
	if err := m.signedIn(t, b); err != nil {
		t.Errorf("while Dex is away: %v", err)
	}

	// Without what it had stored it makes new keys at once, else after six hours.
	if err := os.Remove(filepath.Join(m.dir, "dex.db")); err != nil {
		t.Fatal(err)
	}
	m.startDex(t)
	b = newBrowser(t)
	b.signIn(t, "https://node/", password)
	m.await(t, "the gateway to know Dex's new keys", func() error { return m.signedIn(t, b) })
}

// failedFetches returns how often the gateway has asked Dex for keys in vain.
func failedFetches(t *testing.T) int {
	t.Helper()
	data := admin(t, "/stats?filter=jwks_fetch_failed&format=json")
	var found struct{ Stats []struct{ Value int } }
	if err := json.Unmarshal(data, &found); err != nil || len(found.Stats) == 0 {
		t.Fatalf("Envoy does not count failed fetches: %s, %v", data, err)
	}
	sum := 0
	for _, stat := range found.Stats {
		sum += stat.Value
	}
	return sum
}

// TestKeysProvider: but for where the keys come from, the stack's EnvoyFilter says what
// istiod makes of the RequestAuthentication.
func TestKeysProvider(t *testing.T) {
	m := startMesh(t, render(t, "oauth2-proxy"))
	ours, err := providers(t, "remote_jwks")
	if err != nil {
		t.Fatal(err)
	}
	m.objects = slices.DeleteFunc(m.objects, func(o *unstructured.Unstructured) bool {
		return o.GetKind() == "EnvoyFilter" && o.GetName() == "ingressgateway-dex-keys"
	})
	m.writeConfig(t)
	var istiods map[string]any
	m.await(t, "the gateway to have istiod's provider", func() error {
		istiods, err = providers(t, "local_jwks")
		return err
	})
	if !reflect.DeepEqual(ours, istiods) {
		t.Errorf("the stack's provider is %v, want %v", ours, istiods)
	}
}

// providers returns what the gateway's listeners know of who issues tokens, without the
// field that says where keys come from, which must be there.
func providers(t *testing.T, source string) (map[string]any, error) {
	t.Helper()
	found := map[string]any{}
	for listener, filters := range filters(t) {
		for _, f := range filters {
			all, _, _ := unstructured.NestedMap(f.TypedConfig, "providers")
			for name, p := range all {
				provider := p.(map[string]any)
				if provider[source] == nil {
					return nil, fmt.Errorf("%s of %s has no %s: %v", name, listener, source, provider)
				}
				delete(provider, source)
				found[listener+" "+name] = provider
			}
		}
	}
	if len(found) != 2 {
		return nil, fmt.Errorf("providers %v, want one for each of two listeners", found)
	}
	return found, nil
}
