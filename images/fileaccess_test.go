package images

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"

	"atoll/bundle"
)

// closedFiles is a host of files that wants a login.
type closedFiles struct {
	files http.Handler
	deny  int // what it says to who has none

	mu   sync.Mutex
	seen []string // paths, and who asked
}

func (c *closedFiles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	c.mu.Lock()
	c.seen = append(c.seen, user+"@"+r.URL.Path)
	c.mu.Unlock()
	if password != "s3cret" {
		w.Header().Set("WWW-Authenticate", `Negotiate, Basic realm="files"`)
		w.WriteHeader(c.deny)
		return
	}
	c.files.ServeHTTP(w, r)
}

func newClosedFiles(t *testing.T, dir string) (*closedFiles, string) {
	t.Helper()
	c := &closedFiles{files: http.StripPrefix("/proxy/of", http.FileServer(http.Dir(dir))), deny: http.StatusUnauthorized}
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	return c, srv.URL
}

// loginsFor is a keychain with a login for hosts.
type loginsFor []string

func (l loginsFor) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if slices.Contains(l, "http://"+r.RegistryStr()) {
		return &authn.Basic{Username: "u", Password: "s3cret"}, nil
	}
	return authn.Anonymous, nil
}

// TestReleaseElsewhere: a mirror stands for a host of files as for a registry, with its
// login. The lock names the host itself.
func TestReleaseElsewhere(t *testing.T) {
	_, to := newClosedFiles(t, release(t))
	d := definition(t, "")
	d.K3s.Release = "https://files.test/of"
	o := &Options{Mirrors: map[string]string{"files.test": to + "/proxy"}, Keychain: loginsFor{to}}
	lock := func() ([]bundle.LockedFile, error) {
		c, err := newClient(o)
		if err != nil {
			t.Fatal(err)
		}
		return c.resolveK3s(context.Background(), d)
	}
	files, err := lock()
	if err != nil {
		t.Fatal(err)
	}
	if files[0].URL != "https://files.test/of/k3s" {
		t.Errorf("the lock says %s", files[0].URL)
	}
	s := newStore(t)
	if err := Mirror(context.Background(), d, &bundle.Lock{Files: files}, s, o); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !has(t, s, f.Digest) {
			t.Errorf("%s is not in the store", f.Name)
		}
	}
	o.Keychain = loginsFor{}
	_, errLock := lock()
	errMirror := Mirror(context.Background(), d, &bundle.Lock{Files: files}, newStore(t), o)
	for _, err := range []error{errLock, errMirror} {
		checkText(t, err, "denies access (401 Unauthorized)", `for "`+strings.TrimPrefix(to, "http://")+`" under "auths"`, "--source k3s=FOLDER")
		if err != nil && strings.Contains(err.Error(), "docker login") {
			t.Errorf("no such login is of use: %v", err)
		}
	}
}

// TestFileDenied: a login is for the host that it is kept for, is sent to who asks for it
// only, and not where all can read it.
func TestFileDenied(t *testing.T) {
	storage, storageURL := newClosedFiles(t, t.TempDir())
	var redirect string
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, redirect, http.StatusFound) }))
	t.Cleanup(front.Close)
	redirect = storageURL + "/x"
	c, err := newClient(&Options{Keychain: loginsFor{storageURL, front.URL}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.loginSource(front.URL+"/x", "a=PATH").open(context.Background(), part{size: -1}); err == nil {
		t.Error("who sends on has no right to a login of others")
	}
	storage.deny = http.StatusForbidden
	_, err = c.loginSource(storageURL+"/x", "a=PATH").open(context.Background(), part{size: -1})
	checkText(t, err, "denies access (403 Forbidden)", "--source a=PATH")
	if slices.Contains(storage.seen, "u@/x") {
		t.Errorf("the login was told: %q", storage.seen)
	}
	for url, want := range map[string]bool{"https://files.test/x": true, "http://files.test/x": false, "http://plain.test/x": true} {
		c, err := newClient(&Options{PlainHTTP: []string{"plain.test"}})
		if err != nil {
			t.Fatal(err)
		}
		hc, err := c.loginSource(url, "a=PATH").http(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		access := hc.Transport.(*fileAccess)
		if got := access.login != nil; got != want || strings.Contains(access.advice, "--plain-http files.test") == want {
			t.Errorf("%s: a login may go there: %v, %s", url, got, access.advice)
		}
	}
}

func TestLoginInRelease(t *testing.T) {
	d := definition(t, "")
	d.K3s.Release = "https://u:s3cret@files.test/k3s"
	c, err := newClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.resolveK3s(context.Background(), d)
	checkText(t, err, "k3s.release", `for "files.test"`)
	if err != nil && strings.Contains(err.Error(), "s3cret") {
		t.Errorf("it tells the password: %v", err)
	}
}
