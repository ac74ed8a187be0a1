package kubeflow

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"atoll/test/browser"
	"atoll/test/guest"
)

// node is the name by which the browser knows the machine.
const node = "kubeflow.test"

// checkSignIn signs in to the booted machine with a real browser, through the machine's forwards. In
// the middle of the session restart boots the machine anew, with the same forwards. Pictures of
// all pages are kept in the folder that ATOLL_PICTURES names, if it does.
func checkSignIn(t *testing.T, g *guest.Guest, auth string, restart func()) {
	password, err := g.Run(t.Context(), "sudo atoll node secret user-password", "")
	if err != nil {
		t.Fatal(err)
	}
	site := browser.Site{Host: node, User: "user@example.com", Password: strings.TrimSpace(password)}
	if auth == "authservice" {
		site = site.AuthService()
	} else {
		site = site.OAuth2Proxy()
	}
	cert, err := browser.Certificate(t.Context(), g.Addr(443), node)
	if err != nil {
		t.Fatal(err)
	}
	o := browser.Options{
		Hosts:        map[string]string{node + ":80": g.Addr(80), node + ":443": g.Addr(443)},
		Certificates: []*x509.Certificate{cert},
		Patience:     10 * time.Minute, // nothing is quick without KVM
	}
	start := func(t *testing.T) *browser.Browser {
		o := o
		if dir := os.Getenv("ATOLL_PICTURES"); dir != "" {
			o.Pictures = filepath.Join(dir, t.Name())
		}
		return browser.Start(t.Context(), t, o)
	}
	t.Run("plain", func(t *testing.T) { site.CheckPlain(start(t)) })
	t.Run("session", func(t *testing.T) { site.CheckSession(start(t), restart) })
}

// checkAnonymous asks for every page that the gateway publishes, without signing in and with
// a user of one's own making, by each method: none may come from behind it.
func checkAnonymous(t *testing.T, g *guest.Guest) {
	list, err := g.Kubectl(t.Context(), "", "get", "virtualservices.networking.istio.io", "--all-namespaces", "--output=json")
	if err != nil {
		t.Fatal(err)
	}
	var services struct {
		Items []struct {
			Metadata struct{ Namespace, Name string }
			Spec     struct {
				Gateways []string
				HTTP     []struct {
					Match []struct{ URI map[string]string }
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(list), &services); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, g.Addr(443))
			},
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // it is the guest
		},
	}
	paths := []string{"/"}
	for _, s := range services.Items {
		for _, route := range s.Spec.HTTP {
			for _, match := range route.Match {
				for _, path := range match.URI { // exact, prefix or regex
					paths = append(paths, path)
				}
			}
		}
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	t.Logf("%d paths of %d VirtualServices: %s", len(paths), len(services.Items), strings.Join(paths, " "))
	for _, path := range []string{"/", "/jupyter/", "/kfam/", "/pipeline", "/tensorboards/", "/volumes/"} {
		if !slices.Contains(paths, path) {
			t.Errorf("%s is not published", path)
		}
	}
	for _, path := range paths {
		if free(path) {
			continue
		}
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodOptions} {
			if err := refused(t.Context(), client, method, path); err != nil {
				t.Error(err)
			}
		}
	}
}

// free says whether a path is of the sign-in itself.
func free(path string) bool {
	for _, prefix := range []string{"/dex", "/oauth2", "/authservice"} {
		if path == prefix || strings.HasPrefix(path, prefix+"/") {
			return true
		}
	}
	return false
}

// refused returns an error unless an anonymous request is sent to sign in, or refused.
func refused(ctx context.Context, client *http.Client, method, path string) error {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+node+path, nil)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("kubeflow-userid", "admin@example.com")
	req.Header.Set("kubeflow-groups", "admins")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close()
	switch to := resp.Header.Get("Location"); {
	case resp.Header.Get("X-Stand-In") != "":
		return fmt.Errorf("%s %s came from behind the gateway: %s", method, path, resp.Header.Get("X-Stand-In"))
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return nil
	case resp.StatusCode == http.StatusFound && (strings.Contains(to, "/dex/auth") || strings.Contains(to, "/oauth2/")):
		return nil
	}
	return fmt.Errorf("%s %s: %s, to %q", method, path, resp.Status, resp.Header.Get("Location"))
}
