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

// node is the name by which the browser knows the machine, and user who signs in there.
const (
	node = "kubeflow.test"
	user = "user@example.com"
)

// userPassword is the one that the node has made up.
func userPassword(t *testing.T, g *guest.Guest) string {
	t.Helper()
	password, err := g.Run(t.Context(), "sudo atoll node secret user-password", "")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(password)
}

// checkSignIn signs in to the booted machine with a real browser, through the machine's forwards. In
// the middle of the session restart boots the machine anew, with the same forwards. Pictures of
// all pages are kept in the folder that ATOLL_PICTURES names, if it does.
func checkSignIn(t *testing.T, g *guest.Guest, auth string, restart func()) {
	site := browser.Site{Host: node, User: user, Password: userPassword(t, g)}
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
	pages, err := published([]byte(list))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d pages: %s", len(pages), strings.Join(pages, " "))
	for _, path := range []string{"/", "/jupyter/", "/kfam/", "/pipeline", "/tensorboards/", "/volumes/"} {
		if !slices.Contains(pages, node+path) {
			t.Errorf("%s is not published", path)
		}
	}
	client := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     toGateway(g),
	}
	for _, page := range pages {
		if free(page) {
			continue
		}
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodOptions} {
			if err := refused(t.Context(), client, method, page); err != nil {
				t.Error(err)
			}
		}
	}
}

// toGateway leads all requests to the guest's gateway.
func toGateway(g *guest.Guest) http.RoundTripper {
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, g.Addr(443))
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // it is the guest
	}
}

// published returns what the VirtualServices of a list publish, as HOST/PATH, and the
// beginning. Where they are for any host, that is node.
func published(list []byte) ([]string, error) {
	var services struct {
		Items []struct {
			Metadata struct{ Namespace, Name string }
			Spec     struct {
				Hosts, Gateways []string
				HTTP            []struct {
					Match []struct{ URI map[string]string }
				}
			}
		}
	}
	if err := json.Unmarshal(list, &services); err != nil {
		return nil, fmt.Errorf("reading VirtualServices: %w", err)
	}
	pages := []string{node + "/"}
	for _, s := range services.Items {
		// One that names no gateway is for the mesh alone.
		if !slices.ContainsFunc(s.Spec.Gateways, func(name string) bool { return name != "mesh" }) {
			continue
		}
		for _, host := range s.Spec.Hosts {
			if host == "*" {
				host = node
			}
			host = strings.Replace(host, "*", "any", 1)
			pages = append(pages, host+"/")
			for _, route := range s.Spec.HTTP {
				for _, match := range route.Match {
					for kind, path := range match.URI {
						if kind != "prefix" && kind != "exact" {
							return nil, fmt.Errorf("VirtualService %s/%s matches by %s, of which no page can be told: %s", s.Metadata.Namespace, s.Metadata.Name, kind, path)
						}
						pages = append(pages, host+path)
					}
				}
			}
		}
	}
	slices.Sort(pages)
	return slices.Compact(pages), nil
}

func TestPublished(t *testing.T) {
	const list = `{"items": [
		{"spec": {"gateways": ["kubeflow/kubeflow-gateway"], "hosts": ["*"], "http": [
			{"match": [{"uri": {"prefix": "/a/"}}, {"uri": {"exact": "/b"}}, {"method": {"exact": "GET"}}]}, {"match": [{"uri": {"prefix": "/a/"}}]}]}},
		{"spec": {"gateways": ["mesh", "gateway"], "hosts": ["*.example.com", "x.test"], "http": [{"match": [{"uri": {"KIND": "/c"}}]}]}},
		{"spec": {"gateways": ["mesh"], "hosts": ["mesh.test"], "http": [{"match": [{"uri": {"regex": "/d.*"}}]}]}},
		{"spec": {"hosts": ["mesh.test"]}}]}`
	got, err := published([]byte(strings.Replace(list, "KIND", "exact", 1)))
	want := []string{"any.example.com/", "any.example.com/c", node + "/", node + "/a/", node + "/b", "x.test/", "x.test/c"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if got, err := published([]byte(strings.Replace(list, "KIND", "regex", 1))); err == nil {
		t.Errorf("a regular expression is taken for a path: %v", got)
	}
}

// free says whether a page is of the sign-in itself.
func free(page string) bool {
	for _, path := range []string{"/dex", "/oauth2", "/authservice"} {
		if page == node+path || strings.HasPrefix(page, node+path+"/") {
			return true
		}
	}
	return false
}

// refused returns an error unless an anonymous request is sent to sign in, or refused.
func refused(ctx context.Context, client *http.Client, method, page string) error {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+page, nil)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, page, err)
	}
	req.Header.Set("kubeflow-userid", "admin@example.com")
	req.Header.Set("kubeflow-groups", "admins")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, page, err)
	}
	defer resp.Body.Close()
	switch to := resp.Header.Get("Location"); {
	case resp.Header.Get("X-Stand-In") != "":
		return fmt.Errorf("%s %s came from behind the gateway: %s", method, page, resp.Header.Get("X-Stand-In"))
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return nil
	case resp.StatusCode == http.StatusFound && (strings.Contains(to, "/dex/auth") || strings.Contains(to, "/oauth2/")):
		return nil
	}
	return fmt.Errorf("%s %s: %s, to %q", method, page, resp.Status, resp.Header.Get("Location"))
}
