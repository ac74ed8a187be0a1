package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// An httpFilter is what a listener does with a request.
type httpFilter struct {
	Name        string
	TypedConfig map[string]any `json:"typed_config"`
}

// filters returns the HTTP filters of each of the gateway's listeners, as istiod has sent
// them.
func filters(t *testing.T) map[string][]httpFilter {
	t.Helper()
	var dump struct {
		Configs []struct {
			DynamicListeners []struct {
				Name        string
				ActiveState struct {
					Listener struct {
						FilterChains []struct {
							Filters []struct {
								TypedConfig struct {
									HTTPFilters []httpFilter `json:"http_filters"`
								} `json:"typed_config"`
							}
						} `json:"filter_chains"`
					}
				} `json:"active_state"`
			} `json:"dynamic_listeners"`
		}
	}
	if err := json.Unmarshal(admin(t, "/config_dump"), &dump); err != nil {
		t.Fatal(err)
	}
	found := map[string][]httpFilter{}
	for _, config := range dump.Configs {
		for _, listener := range config.DynamicListeners {
			for _, chain := range listener.ActiveState.Listener.FilterChains {
				for _, filter := range chain.Filters {
					found[listener.Name] = filter.TypedConfig.HTTPFilters
				}
			}
		}
	}
	return found
}

// TestFilters: the stack's own filter is the first, then who signs people in is asked,
// before anything else looks at a request.
func TestFilters(t *testing.T) {
	want := map[string][]string{
		"authservice":  {"lua", "rbac", "ext_authz", "rbac"},
		"oauth2-proxy": {"lua", "rbac", "ext_authz", "jwt_authn", "rbac"},
	}
	eachAuth(t, func(t *testing.T, m *mesh) {
		found := filters(t)
		if len(found) != 2 {
			t.Errorf("listeners: %v", found)
		}
		for listener, filters := range found {
			var names []string
			for _, f := range filters {
				names = append(names, strings.TrimPrefix(f.Name, "envoy.filters.http."))
			}
			want := want[m.auth]
			if len(names) < len(want) || !slices.Equal(names[:len(want)], want) {
				t.Errorf("%s has filters %v, want %v first", listener, names, want)
			}
		}
	})
}

// TestNothingPassesWithoutProvider: where who signs people in is gone, nobody passes, be it
// signed in or not.
func TestNothingPassesWithoutProvider(t *testing.T) {
	eachAuth(t, func(t *testing.T, m *mesh) {
		b := newBrowser(t)
		b.signIn(t, "https://node/", password)
		m.echo.take()
		closed := func(t *testing.T, b *browser) error {
			p := b.get(t, "https://node/jupyter/x")
			if got := m.echo.take(); len(got) > 0 {
				return fmt.Errorf("%s got %s, identity %q, and the answer was %d", got[0].Service, got[0].URI, got[0].identity(), p.status)
			}
			if p.status != http.StatusForbidden && p.status != http.StatusServiceUnavailable {
				return fmt.Errorf("answer %d, %v", p.status, p.header)
			}
			return nil
		}
		t.Run("stopped", func(t *testing.T) {
			if closed(t, b) == nil {
				t.Fatal("who is signed in does not pass at first")
			}
			m.stop(m.auth)
			for who, b := range map[string]*browser{"anonymous": newBrowser(t), "signed in": b} {
				if err := closed(t, b); err != nil {
					t.Errorf("%s: %v", who, err)
				}
			}
		})
		m.startAuth(t)
		t.Run("not in the mesh configuration", func(t *testing.T) {
			m.await(t, "a request to pass again", func() error {
				if closed(t, b) == nil {
					return errors.New("still refused")
				}
				return nil
			})
			config := m.find(t, "ConfigMap", "istio-system", "istio")
			replace(t, config, "name: "+m.auth, "name: gone", "data", "mesh")
			m.writeConfig(t)
			m.await(t, "refusal of who is signed in", func() error { return closed(t, b) })
			if err := closed(t, newBrowser(t)); err != nil {
				t.Errorf("anonymous: %v", err)
			}
		})
	})
}
