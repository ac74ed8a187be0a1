package images

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"atoll/test/regtest"
)

// TestWhoIsBlamed: what a storage or a token server does is said of it, not of the registry
// that sends there, with what helps there.
func TestWhoIsBlamed(t *testing.T) {
	tlsOnly := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(tlsOnly.Close)
	tlsHost := strings.TrimPrefix(tlsOnly.URL, "https://")
	closed := httptest.NewServer(nil)
	closed.Close()
	closedHost := strings.TrimPrefix(closed.URL, "http://")
	sendTo := func(u string) regtest.Fault {
		return func(q regtest.Request, a *regtest.Answer) {
			regtest.Refuse(307)(q, a)
			a.Header.Set("Location", u+"/x?signature=s3cret")
		}
	}
	for _, tc := range []struct {
		name  string
		fault regtest.Fault
		kind  regtest.Kind
		says  string // with the names of the hosts in it
	}{
		{"403 of a storage", regtest.Refuse(403), regtest.Storage, "HOST sends to its storage ELSEWHERE, which denies access, though the registry sent us there: "},
		{"503 of a storage", regtest.Refuse(503), regtest.Storage, "HOST sends to its storage ELSEWHERE, which fails: "},
		{"404 of a storage", regtest.Refuse(404), regtest.Storage, "ELSEWHERE no longer has "},
		{"storage breaks off", regtest.Drop, regtest.Storage, "HOST sends to its storage ELSEWHERE, which breaks connections off "},
		{"storage stalls", regtest.Stall(0.5), regtest.Storage, "HOST sends to its storage ELSEWHERE, which keeps connections "},
		{"unknown authority", sendTo(tlsOnly.URL), regtest.Blob, "HOST sends to its storage " + tlsHost + ", which has a certificate of an unknown authority: put that authority's into /etc/docker/certs.d/" + tlsHost + "/ca.crt: "},
		{"storage is not there", sendTo(closed.URL), regtest.Blob, "HOST sends to its storage " + closedHost + ", which cannot be reached: "},
		{"link-local storage", sendTo("http://169.254.1.1"), regtest.Blob, "image lab.test/lab/tiny:1 at HOST: "},
		{"503 of a token server", regtest.Refuse(503), regtest.Token, "HOST sends to its token server ELSEWHERE, which fails: "},
		{"404 of a token server", regtest.Refuse(404), regtest.Token, "HOST sends to its token server ELSEWHERE, which does not have what was asked for: "},
		{"403 of a token server", regtest.Refuse(403), regtest.Token, `HOST sends to its token server ELSEWHERE, which denies access: check the name, or log in with "docker login HOST": `},
		{"503 of the registry", regtest.Refuse(503), regtest.Manifest, "image lab.test/lab/tiny:1 at HOST: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := regtest.New(t)
			tiny(r, "lab/tiny:1")
			locked := mustLock(t, caseOptions(r), "lab.test/lab/tiny:1")
			r.Login(&regtest.Auth{Realm: "http://" + r.Elsewhere + "/token"})
			r.Store(&regtest.Presign{At: r.Elsewhere})
			r.Break(regtest.On(tc.fault, tc.kind))
			o := caseOptions(r)
			o.idle, o.certs = impatient, []string{t.TempDir()}
			err := mirrorCase(t, o, newStore(t), locked)
			says := strings.NewReplacer("HOST", r.Host, "ELSEWHERE", r.Elsewhere).Replace(tc.says)
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v, want %q", err, says)
			}
			checkNoSecret(t, err)
		})
	}
}

// TestWrongLogin: credentials that are refused are shown once, for all repositories, and it
// is said that it is they; those that may not read one repository are good for the others.
func TestWrongLogin(t *testing.T) {
	for _, basic := range []bool{true, false} {
		t.Run(fmt.Sprintf("basic %v", basic), func(t *testing.T) {
			r := regtest.New(t)
			var refs []string
			for i := range 6 {
				name := fmt.Sprintf("lab/tiny%d:1", i)
				tiny(r, name)
				refs = append(refs, "lab.test/"+name)
			}
			r.Login(&regtest.Auth{User: "u", Password: "right", Basic: basic, Realm: "http://" + r.Elsewhere + "/token"})
			o := caseOptions(r)
			o.Keychain = user{"u", "s3cret"}
			_, err := lockCase(t, o, refs...)
			if n := len(Failures(err)); n != 6 || strings.Count(err.Error(), `refuses the credentials that it was sent: log in anew with "docker login `+r.Host+`"`) != n {
				t.Errorf("got %v", err)
			}
			checkNoSecret(t, err)
			shown := 0
			for _, q := range r.Requests() {
				if strings.HasPrefix(q.Authorization, "Basic ") {
					shown++
				}
			}
			if shown != 1 {
				t.Errorf("a wrong password was shown %d times", shown)
			}
		})
	}
	r := regtest.New(t)
	tiny(r, "lab/mine:1", "lab/other:1")
	r.Login(&regtest.Auth{User: "u", Password: "s3cret", Realm: "http://" + r.Elsewhere + "/token"})
	r.Break(regtest.On(func(q regtest.Request, a *regtest.Answer) {
		if strings.Contains(q.Query, "other") {
			regtest.Refuse(403)(q, a)
		}
	}, regtest.Token))
	o := caseOptions(r)
	o.Keychain, o.Jobs = user{"u", "s3cret"}, 1
	_, err := lockCase(t, o, "lab.test/lab/other:1", "lab.test/lab/mine:1")
	if n := len(Failures(err)); n != 1 || !strings.Contains(err.Error(), "denies access with the credentials that it was sent: ") {
		t.Errorf("got %v", err)
	}
	if n := r.Count(regtest.Token); n != 2 {
		t.Errorf("%d tokens were asked for, want one for each repository", n)
	}
}

// TestOneCauseManyImages: what keeps several images away says the same of each.
func TestOneCauseManyImages(t *testing.T) {
	r := regtest.New(t)
	tiny(r, "lab/a:1")
	r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(9, 5000)}}, "lab/b:1")
	locked := mustLock(t, caseOptions(r), "lab.test/lab/a:1", "lab.test/lab/b:1")
	r.Login(&regtest.Auth{User: "u", Password: "s3cret", Basic: true})
	helperSetUp(t, r, "fail")
	o := caseOptions(r)
	o.Keychain = nil
	all := Failures(mirrorCase(t, o, newStore(t), locked))
	if len(all) != 2 || all[0].Said() != all[1].Said() || strings.Contains(all[0].Said(), "lab/") || !strings.Contains(all[0].Said(), "vault is sealed") {
		t.Errorf("got %v", all)
	}
	for i, f := range all {
		if name := f.Names[0]; !strings.HasPrefix(f.Error(), name+" at "+r.Host+": ") {
			t.Errorf("%d: %q does not name %s and its host", i, f, name)
		}
	}
}

// TestEachHostsWord: of an image that is at several hosts it is told what each says.
func TestEachHostsWord(t *testing.T) {
	one, two := regtest.New(t), regtest.New(t)
	tiny(one, "lab/tiny:1")
	tiny(two, "lab/tiny:1")
	o := caseOptions(one)
	o.Mirrors["two.test"] = two.URL()
	locked := mustLock(t, o, "lab.test/lab/tiny:1", "two.test/lab/tiny:1")
	for _, kind := range []regtest.Kind{regtest.Manifest, regtest.Blob} {
		one.Break(regtest.On(regtest.Refuse(404), kind))
		two.Break(regtest.On(regtest.Refuse(403), kind))
		err := mirrorCase(t, o, newStore(t), locked)
		for _, f := range Failures(err) {
			if f.Host != two.Host || !strings.HasPrefix(f.Said(), "denies access") || !strings.HasSuffix(f.Said(), "; "+one.Host+" no longer has it") {
				t.Errorf("%s: %s says %q", kind, f.Host, f.Said())
			}
			if !strings.Contains(f.Error(), one.Host+" no longer has sha256:") || !strings.Contains(f.Error(), two.Host+" denies access") {
				t.Errorf("%s: got %v", kind, f)
			}
		}
		if err == nil {
			t.Errorf("%s: got no error", kind)
		}
	}
}

// TestProxySays: what a proxy refuses is said of it, and never its password.
func TestProxySays(t *testing.T) {
	for _, tc := range []struct {
		status int
		scheme string
		times  int // requests
		says   string
	}{
		{407, "https", 1, "refuses us without a right login: give its user and password in HTTPS_PROXY, percent-encoded: "},
		{407, "http", 1, "refuses us without a right login: give its user and password in HTTP_PROXY, percent-encoded: "},
		{403, "https", 2, "refuses the connection: have the host allowed there"},
		{503, "https", maxTries, "does not get through to it: "},
	} {
		t.Run(fmt.Sprint(tc.status, tc.scheme), func(t *testing.T) {
			var mu sync.Mutex
			times := 0
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				times++
				mu.Unlock()
				w.WriteHeader(tc.status)
			}))
			defer srv.Close()
			proxy, err := url.Parse(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			proxy.User = url.UserPassword("u", "s3cret")
			o := caseOptions(regtest.New(t))
			o.Mirrors["lab.test"] = tc.scheme + "://reg.test"
			c, err := newClient(o)
			if err != nil {
				t.Fatal(err)
			}
			c.http.Transport.(*patience).inner.(*hosts).shared.Proxy = http.ProxyURL(proxy)
			_, err = c.resolveImages(t.Context(), []Wanted{{Reference: "lab.test/a:1"}, {Reference: "lab.test/b:1"}}, "amd64")
			if err == nil || strings.Count(err.Error(), "reg.test cannot be reached: the proxy "+proxy.Host+" "+tc.says) != 2 {
				t.Errorf("got %v, want %q", err, tc.says)
			}
			checkNoSecret(t, err)
			if times > 2*tc.times {
				t.Errorf("the proxy was asked %d times", times)
			}
		})
	}
}

// TestProxyVariables: a value that names no proxy is refused, by the variable's name.
func TestProxyVariables(t *testing.T) {
	good := []string{"", "10.0.0.1:3128", "proxy", "http://proxy.test:3128", "http://u:p%23@proxy.test:3128/", "https://[::1]:3128", "socks5://10.0.0.1:1080"}
	bad := []string{"http://u:s3cret#@proxy.test:3128", "http://u:12/s3cret@proxy.test", "http://u:s3cret%@proxy.test", "ftp://s3cret", "http://", "s3cret:port:3128", "u:12#s3cret@proxy"}
	for _, name := range []string{"HTTP_PROXY", "https_proxy"} {
		for _, v := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
			t.Setenv(v, "")
		}
		for _, value := range slices.Concat(good, bad) {
			t.Setenv(name, value)
			_, err := newClient(nil)
			if slices.Contains(good, value) != (err == nil) {
				t.Errorf("%s=%s: got %v", name, value, err)
			}
			if err != nil && !strings.Contains(err.Error(), name) {
				t.Errorf("%s=%s: got %v", name, value, err)
			}
			checkNoSecret(t, err)
		}
	}
}

// TestCertsFolder: the first folder that is there is the one that counts.
func TestCertsFolder(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	dirs := []string{first, second}
	for _, want := range []string{"/etc/docker/certs.d/reg.test", filepath.Join(second, "reg.test"), filepath.Join(first, "reg.test")} {
		if !strings.HasPrefix(want, "/etc") {
			if err := os.Mkdir(want, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if got := certsFolder(dirs, "reg.test"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
