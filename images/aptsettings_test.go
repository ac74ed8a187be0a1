package images

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"atoll/bundle"
)

// closedArchive is an archive that wants a login, behind a proxy that wants another: one
// server is both. It is deb.test.
type closedArchive struct {
	files http.Handler
	dir   string // of the files
	url   string // of the proxy

	mu   sync.Mutex
	debs int
}

func newClosedArchive(t *testing.T) *closedArchive {
	t.Helper()
	dir := archive(t)
	c := &closedArchive{dir: dir, files: http.StripPrefix("/debian", http.FileServer(http.Dir(dir)))}
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	c.url = srv.URL
	return c
}

func (c *closedArchive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	proxied := &http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
	pUser, pPassword, _ := proxied.BasicAuth()
	switch {
	case pUser != "door" || pPassword != "s3cret-door":
		w.WriteHeader(http.StatusProxyAuthRequired)
	case r.URL.Host != "deb.test":
		w.WriteHeader(http.StatusBadGateway)
	case user != "apt" || password != "s3cret-deb":
		w.Header().Set("WWW-Authenticate", `Basic realm="debs"`)
		w.WriteHeader(http.StatusUnauthorized)
	default:
		if strings.HasSuffix(r.URL.Path, ".deb") {
			c.mu.Lock()
			c.debs++
			c.mu.Unlock()
		}
		c.files.ServeHTTP(w, r)
	}
}

// aptMachine makes a machine whose apt has this configuration and these logins.
func aptMachine(t *testing.T, conf, logins string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/auth.conf.d", 0o755); err != nil {
		t.Fatal(err)
	}
	conf = "Dir::Etc::netrc \"" + dir + "/auth.conf\"; Dir::Etc::netrcparts \"" + dir + "/auth.conf.d\";\n" + conf
	for name, text := range map[string]string{"apt.conf": conf, "auth.conf.d/lab.conf": logins, "auth.conf.d/old.bak": "machine http://deb.test login x password x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("APT_CONFIG", dir+"/apt.conf")
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"} {
		t.Setenv(name, "")
	}
}

// TestClosedArchive has packages fetched by all that apt fetched their indexes with.
func TestClosedArchive(t *testing.T) {
	c := newClosedArchive(t)
	proxy := "Acquire::http::Proxy \"" + c.url + "\";\n"
	withLogin := "Acquire::http::Proxy \"" + strings.Replace(c.url, "://", "://door:s3cret-door@", 1) + "\";\n"
	program := filepath.Join(t.TempDir(), "find-proxy")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho "+c.url+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	const door, deb = "machine http://127.0.0.1 login door password s3cret-door\n", "machine http://deb.test/debian login apt password s3cret-deb\n"
	d := definition(t, "")
	d.Base = bundle.Base{Suite: "bookworm", Sources: []string{"deb [trusted=yes] http://deb.test/debian bookworm main"}}
	for _, tc := range []struct {
		name, conf, logins string
	}{
		{"proxy", proxy, door + deb},
		{"login in the proxy's URL", withLogin, deb},
		{"for this host", "Acquire::http::Proxy \"http://127.0.0.1:1\"; Acquire::http::Proxy::deb.test \"" + c.url + "\";", deb + door},
		{"found by a program", "Acquire::http::Proxy-Auto-Detect \"" + program + "\";", deb + door},
	} {
		t.Run(tc.name, func(t *testing.T) {
			aptMachine(t, tc.conf, tc.logins)
			c.debs = 0
			var log logged
			o := &Options{Log: log.logger()}
			got, _, err := ResolvePackages(context.Background(), d.Base, "amd64", []string{"app"}, o)
			if err != nil {
				t.Fatal(err)
			}
			s := newStore(t)
			if err := Mirror(context.Background(), d, &bundle.Lock{Packages: got}, s, o); err != nil {
				t.Fatal(err)
			}
			if c.debs != len(got) || len(got) != 4 {
				t.Errorf("%d packages, %d requests for them, want 4 each", len(got), c.debs)
			}
			if strings.Contains(log.String(), "s3cret") {
				t.Errorf("the log tells secrets:\n%s", log.String())
			}
		})
	}
	open := bundle.Base{Suite: "bookworm", Sources: []string{"deb [trusted=yes] file:" + c.dir + " bookworm main"}}
	locked, _, err := ResolvePackages(context.Background(), open, "amd64", []string{"app"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, conf, logins string
		want               string
	}{
		{"no login", proxy, door, `denies access (401 Unauthorized): put "machine http://deb.test login USER password PASSWORD" into a file /etc/apt/auth.conf.d/`},
		{"no login for the proxy", proxy, deb, "the proxy of apt's configuration refuses: its login goes into Acquire::http::Proxy, or"},
		{"proxy is down", "Acquire::http::Proxy \"http://door:s3cret-door@127.0.0.1:1\";", deb, "check Acquire::http::Proxy of apt's configuration"},
		{"proxy is no URL", "Acquire::http::Proxy \"http://door:s3cret-%zz@127.0.0.1:1\";", deb, "Acquire::http::Proxy of apt's configuration is no URL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			aptMachine(t, tc.conf, tc.logins)
			err := Mirror(context.Background(), d, &bundle.Lock{Packages: locked}, newStore(t), nil)
			checkText(t, err, "package app at deb.test", tc.want)
			if err != nil && (strings.Contains(err.Error(), "docker login") || strings.Contains(err.Error(), "s3cret")) {
				t.Errorf("it should not say %v", err)
			}
		})
	}
}

// TestArchiveDown has advice that is of use: --mirror is not for archives.
func TestArchiveDown(t *testing.T) {
	aptMachine(t, "", "")
	d := definition(t, "")
	d.Base = bundle.Base{Suite: "bookworm", Sources: []string{"deb [trusted=yes] http://127.0.0.1:1/debian bookworm main"}}
	p := bundle.LockedPackage{Name: "app", Digest: hashOf(nil), Size: 1}
	err := Mirror(context.Background(), d, &bundle.Lock{Packages: []bundle.LockedPackage{p}}, newStore(t), nil)
	checkText(t, err, "package app at 127.0.0.1:1", "cannot be reached", "base.sources", "Acquire::http::Proxy")
	if err != nil && strings.Contains(err.Error(), "--mirror") {
		t.Errorf("it should not say %v", err)
	}
}

// TestAptLogins has the examples of apt_auth.conf(5).
func TestAptLogins(t *testing.T) {
	for _, tc := range []struct {
		file, url string
		want      string // the user
	}{
		{"machine example.org login apt password debian", "https://example.org/debian/x", "apt"},
		{"machine example.org\nlogin apt\npassword debian", "https://example.org/debian/x", "apt"},
		{"machine example.org/deb login apt password debian", "https://example.org/debian/x", "apt"},
		{"machine example.org/debian/ login apt password debian", "https://example.org/debian/x", "apt"},
		{"machine example.org:443 login apt password debian", "https://example.org/debian/x", ""},
		{"machine example.org/deb/ login apt password debian", "https://example.org/debian/x", ""},
		{"machine example.org/ubuntu login apt password debian", "https://example.org/debian/x", ""},
		{"machine example.orga login apt password debian", "https://example.org/debian/x", ""},
		{"machine example.org login apt password debian", "http://example.org/debian/x", ""},
		{"machine http://example.org login apt password debian", "http://example.org/debian/x", "apt"},
		{"machine example.org login apt password debian", "https://example.org:8443/debian/x", "apt"},
		{"machine example.org:8443/debian login apt password debian", "https://example.org:8443/debian/x", "apt"},
		{"machine a.test login a password a account z machine example.org login second password b", "https://example.org/debian/x", "second"},
		{"machine", "https://example.org/", ""},
	} {
		s := aptSettings{logins: parseLogins(tc.file)}
		u, err := url.Parse(tc.url)
		if err != nil {
			t.Fatal(err)
		}
		if l, _ := s.login(u); l.user != tc.want {
			t.Errorf("%q for %s: got %q, want %q", tc.file, tc.url, l.user, tc.want)
		}
	}
}

func TestAptProxy(t *testing.T) {
	aptMachine(t, "", "")
	t.Setenv("no_proxy", "near.test")
	for _, tc := range []struct {
		values map[string]string
		url    string
		want   string
	}{
		{map[string]string{"acquire::http::proxy": "http://p:1"}, "http://deb.test/", "http://p:1"},
		{map[string]string{"acquire::http::proxy": "http://p:1"}, "https://deb.test/", "http://p:1"},
		{map[string]string{"acquire::http::proxy": "http://p:1", "acquire::https::proxy": "http://q:1"}, "https://deb.test/", "http://q:1"},
		{map[string]string{"acquire::http::proxy": "http://p:1", "acquire::https::proxy": "DIRECT"}, "https://deb.test/", ""},
		{map[string]string{"acquire::http::proxy": "http://p:1", "acquire::http::proxy::deb.test": "DIRECT"}, "http://deb.test:8080/", ""},
		{map[string]string{"acquire::http::proxy": "http://p:1"}, "http://near.test/", ""},
		{map[string]string{"acquire::https::proxy": "http://p:1"}, "http://deb.test/", ""},
	} {
		req, err := http.NewRequest(http.MethodGet, tc.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := (&aptSettings{values: tc.values}).proxy(req)
		got := ""
		if p != nil {
			got = p.String()
		}
		if got != tc.want || err != nil {
			t.Errorf("%v for %s: got %q, %v, want %q", tc.values, tc.url, got, err, tc.want)
		}
	}
}

// TestLoginInSource: apt repeats a source's URL in its errors, and not as it was written.
func TestLoginInSource(t *testing.T) {
	d := definition(t, "")
	d.Base = bundle.Base{Suite: "bookworm", Sources: []string{"deb http://deb.test/debian bookworm main", "deb http://apt:s3cret@127.0.0.1:1/debian bookworm main"}}
	_, _, errLock := ResolvePackages(context.Background(), d.Base, "amd64", nil, nil)
	p := bundle.LockedPackage{Name: "app", Digest: hashOf(nil), Size: 1}
	errMirror := Mirror(context.Background(), d, &bundle.Lock{Packages: []bundle.LockedPackage{p}}, newStore(t), nil)
	for _, err := range []error{errLock, errMirror} {
		checkText(t, err, "base.sources", `"machine http://127.0.0.1:1 login USER password PASSWORD"`, "/etc/apt/auth.conf.d/")
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("it tells the password: %v", err)
		}
	}
	if !errors.Is(errMirror, bundle.ErrIncomplete) {
		t.Errorf("got %v, want it incomplete", errMirror)
	}
	for _, fine := range []string{"deb http://deb.test/a@b bookworm main", "deb [signed-by=/k@x] file:/a@b bookworm main"} {
		if err := refuseLogin("x", fine); err != nil {
			t.Errorf("%s: %v", fine, err)
		}
	}
}
