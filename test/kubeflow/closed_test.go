package kubeflow

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"atoll/test/guest"
)

// checkClosed stops who signs people in. Then nobody passes the gateway, be it signed in or
// not; and who was signed in passes again once that is back.
func checkClosed(t *testing.T, g *guest.Guest, auth string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	kubectl := func(args ...string) {
		t.Helper()
		if _, err := g.Kubectl(ctx, "", args...); err != nil {
			t.Fatal(err)
		}
	}
	namespace, provider, pods := "oauth2-proxy", "deployment/oauth2-proxy", "app.kubernetes.io/name=oauth2-proxy"
	if auth == "authservice" {
		namespace, provider, pods = "istio-system", "statefulset/oidc-authservice", "app=authservice"
	}
	if out, err := g.Kubectl(ctx, "", "get", "pods", "--namespace", namespace, "--selector", pods, "--output=name"); err != nil || strings.Count(out, "\n") != 1 {
		t.Fatalf("pods of %s: %q, %v; want one", provider, out, err)
	}
	signedIn := signIn(ctx, t, g, auth)
	paths := []string{"/", "/jupyter/", "/pipeline", "/kfam/"}
	passes := func() error {
		if status, err := ask(ctx, signedIn, node+"/"); err != nil || status != http.StatusOK {
			return fmt.Errorf("who is signed in is answered with %d, %w", status, err)
		}
		return nil
	}
	if err := passes(); err != nil {
		t.Fatal(err)
	}

	kubectl("scale", "--namespace", namespace, provider, "--replicas=0")
	kubectl("wait", "--namespace", namespace, "--for=delete", "pod", "--selector", pods, "--timeout=10m")
	anonymous := &http.Client{Transport: signedIn.Transport, CheckRedirect: signedIn.CheckRedirect}
	for who, client := range map[string]*http.Client{"anonymous": anonymous, "signed in": signedIn} {
		for _, path := range paths {
			status, err := ask(ctx, client, node+path)
			if err != nil || status != http.StatusForbidden && status < http.StatusInternalServerError {
				t.Errorf("without %s, %s is answered with %d, %v for %s", provider, who, status, err, path)
			}
		}
	}

	kubectl("scale", "--namespace", namespace, provider, "--replicas=1")
	kubectl("rollout", "status", "--namespace", namespace, provider, "--timeout=10m")
	if err := guest.WaitFor(ctx, passes); err != nil {
		t.Fatal(err)
	}
}

// signIn returns a client that has signed in as the stack's user, by Dex's form, and follows
// no redirect.
func signIn(ctx context.Context, t *testing.T, g *guest.Guest, auth string) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Transport: toGateway(g)}
	start := "https://" + node + "/"
	if auth == "oauth2-proxy" { // past its page with a button
		start += "oauth2/start?rd=%2F"
	}
	// The form is sent to where it came from.
	form, err := send(ctx, client, http.MethodGet, start, nil)
	if err != nil || !strings.HasPrefix(form.Request.URL.Path, "/dex/") {
		t.Fatalf("%s does not lead to Dex's form: %+v, %v", start, form, err)
	}
	fields := url.Values{"login": {user}, "password": {userPassword(t, g)}}
	home, err := send(ctx, client, http.MethodPost, form.Request.URL.String(), fields)
	if err != nil || home.StatusCode != http.StatusOK || home.Request.URL.String() != "https://"+node+"/" {
		t.Fatalf("signed in, the home page does not come: %+v, %v", home, err)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client
}

// send makes a request and returns the answer, whose body is closed.
func send(ctx context.Context, client *http.Client, method, address string, form url.Values) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	return resp, resp.Body.Close()
}

// ask returns the status that a page is answered with.
func ask(ctx context.Context, client *http.Client, page string) (int, error) {
	resp, err := send(ctx, client, http.MethodGet, "https://"+page, nil)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, nil
}
