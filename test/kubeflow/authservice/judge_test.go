package main

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// TestJudge holds what was seen of the real one, which the tests of the gateway rely upon.
func TestJudge(t *testing.T) {
	j := &judge{prefix: "/authservice/", free: []string{"/dex/", "/authservice/"}, afterLogout: "/", userHeader: "kubeflow-userid", groupHeader: "kubeflow-groups",
		client: &oauth2.Config{Endpoint: oauth2.Endpoint{AuthURL: "/dex/auth"}}}
	server := sayStandIn(j)
	ask := func(method, target string, headers ...string) *http.Response {
		r := httptest.NewRequest(method, target, nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		if w.Header().Get("X-Stand-In") == "" {
			t.Errorf("%s %s: does not say what it is", method, target)
		}
		return w.Result()
	}
	if got := ask("GET", "/"); got.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("before it is ready: %s", got.Status)
	}

	var err error
	if j.sessions, err = openStore(filepath.Join(t.TempDir(), "sessions")); err != nil {
		t.Fatal(err)
	}
	if j.states, err = openStore(filepath.Join(t.TempDir(), "states")); err != nil {
		t.Fatal(err)
	}
	j.ready.Store(true)
	id, err := j.sessions.put(entry{User: "a@b", Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	expired, err := j.sessions.put(entry{User: "a@b", Expires: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		method, target string
		headers        []string
		status         int
		user           string
	}{
		{"GET", "/", nil, 302, ""},
		{"GET", "/", []string{"Cookie", sessionCookie + "=" + id}, 200, "a@b"},
		{"GET", "/", []string{"X-Auth-Token", id}, 200, "a@b"},
		{"GET", "/", []string{"Authorization", "Bearer " + id}, 200, "a@b"},
		{"GET", "/", []string{"Cookie", sessionCookie + "=" + expired}, 302, ""},
		{"GET", "/", []string{"Cookie", sessionCookie + "="}, 302, ""},
		{"OPTIONS", "/jupyter/", nil, 200, ""},
		{"OPTIONS", "/jupyter/", []string{"Cookie", sessionCookie + "=" + id}, 200, ""},
		{"GET", "/dex/auth", nil, 200, ""},
		{"GET", "/dex%2Fx", nil, 200, ""},
		{"GET", "/authservice%2fx", nil, 200, ""},
		{"GET", "/dexter", nil, 302, ""},
		{"GET", "//dex/x", nil, 301, ""},
		{"GET", "/dex/..%2Fjupyter", nil, 301, ""},
		{"GET", "/authservice/logout", nil, 200, ""},
		{"POST", "/authservice/logout", nil, 401, ""},
		{"POST", "/authservice/logout", []string{"Cookie", sessionCookie + "=" + id}, 401, ""},
		{"POST", "/authservice/logout", []string{"Authorization", "Bearer " + expired}, 401, ""},
		{"GET", "/authservice/oidc/callback", nil, 302, ""},
		{"GET", "/authservice/oidc/callback?code=x", nil, 400, ""},
		{"GET", "/authservice/oidc/callback?code=x&state=y", []string{"Cookie", stateCookie + "=y"}, 400, ""},
		{"POST", "/authservice/logout", []string{"Authorization", "Bearer " + id}, 201, ""},
		{"GET", "/", []string{"Cookie", sessionCookie + "=" + id}, 302, ""},
	} {
		got := ask(tc.method, tc.target, tc.headers...)
		if got.StatusCode != tc.status || got.Header.Get("kubeflow-userid") != tc.user {
			t.Errorf("%s %s %q: %s, user %q", tc.method, tc.target, tc.headers, got.Status, got.Header.Get("kubeflow-userid"))
		}
	}
}
