package images

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/test/regtest"

	"atoll/bundle/bounds"
)

// loginLab is a lab with an image that wants a token, and its token server, which notes what it is asked.
func loginLab(t *testing.T, answer func(r *http.Request) (status int, body string)) (l *lab, asked func() []string) {
	t.Helper()
	l = newLab(t)
	l.push(t, randomImage(t, "amd64", 1000, 1), "ghcr.io/a/x:1")
	handler := l.handler
	var mu sync.Mutex
	var notes []string
	l.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			r.ParseForm()
			user, password, _ := r.BasicAuth()
			mu.Lock()
			notes = append(notes, fmt.Sprintf("%s %s:%s %s", r.Method, user, password, r.Form.Encode()))
			mu.Unlock()
			status, body := answer(r)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
			return
		}
		if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer good") {
			handler.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="lab"`)
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, strings.Repeat("no ", maxRefusal)) // more than anyone reads
	})
	return l, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return notes
	}
}

type fixed authn.AuthConfig

func (f fixed) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig(f)), nil
}

func TestTokens(t *testing.T) {
	const scope = "scope=repository%3Aghcr.io%2Fa%2Fx%3Apull"
	good := `{"token":"good","expires_in":3600}`
	tries := 0
	for name, tc := range map[string]struct {
		auth   fixed
		answer func(r *http.Request) (int, string)
		want   []string // how the token server is asked
		says   string   // the error
	}{
		"anonymous":      {want: []string{"GET : " + scope + "&service=lab"}},
		"password":       {auth: fixed{Username: "u", Password: "p"}, want: []string{"GET u:p account=u&" + scope + "&service=lab"}},
		"encoded":        {auth: fixed{Auth: "dTpw"}, want: []string{"GET u:p " + scope + "&service=lab"}},
		"registry token": {auth: fixed{RegistryToken: "good1"}},
		"identity token": {auth: fixed{IdentityToken: "i"},
			want: []string{"POST : client_id=atoll&grant_type=refresh_token&refresh_token=i&" + scope + "&service=lab"}},
		"identity token, GET only": {auth: fixed{IdentityToken: "i"},
			answer: func(r *http.Request) (int, string) {
				if r.Method == http.MethodPost {
					return http.StatusMethodNotAllowed, ""
				}
				return http.StatusOK, good
			},
			want: []string{"POST : client_id=atoll&grant_type=refresh_token&refresh_token=i&" + scope + "&service=lab", "GET : " + scope + "&service=lab"}},
		"renewed": {answer: func(*http.Request) (int, string) {
			if tries++; tries == 1 {
				return 200, `{"token":"bad"}`
			}
			return 200, good
		}, want: []string{"GET : " + scope + "&service=lab", "GET : " + scope + "&service=lab"}},
		"odd expiry":   {answer: func(*http.Request) (int, string) { return 200, `{"access_token":"good","expires_in":"60"}` }, want: []string{"GET : " + scope + "&service=lab"}},
		"wrong":        {answer: func(*http.Request) (int, string) { return 401, `{}` }, want: []string{"GET : " + scope + "&service=lab"}, says: "docker login"},
		"large answer": {answer: func(*http.Request) (int, string) { return 200, `{"token":"` + strings.Repeat("a", bounds.Token) + `"}` }, want: []string{"GET : " + scope + "&service=lab"}, says: "is larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			answer := tc.answer
			if answer == nil {
				answer = func(*http.Request) (int, string) { return http.StatusOK, good }
			}
			l, asked := loginLab(t, answer)
			o := l.options()
			o.Keychain, o.Jobs = tc.auth, 1 // registry and token server are one host
			c, err := newClient(o)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, err = c.resolveImages(ctx, []Wanted{{Reference: "ghcr.io/a/x:1"}}, "amd64")
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
			got := asked()
			if len(got) < len(tc.want) || tc.says == "" && len(got) != len(tc.want) {
				t.Fatalf("token server was asked %q, want %q", got, tc.want)
			}
			for i, want := range tc.want {
				if got[i] != want {
					t.Errorf("token server was asked %q, want %q", got[i], want)
				}
			}
		})
	}
}

// TestTokenIsRenewedInTime: past its life a token is not shown any more.
func TestTokenIsRenewedInTime(t *testing.T) {
	l, asked := loginLab(t, func(*http.Request) (int, string) { return 200, `{"token":"good","expires_in":3600}` })
	o := l.options()
	o.Keychain = fixed{}
	c, err := newClient(o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.repository("ghcr.io/a/x:1")
	if err != nil {
		t.Fatal(err)
	}
	hc, err := r.client(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	in := hc.Transport.(*login)
	for want := range 3 {
		for range 2 {
			r.small(context.Background(), "manifests/1", v1.Hash{}) // which is not there
		}
		if got := len(asked()); got != want+1 {
			t.Errorf("%d tokens, want %d", got, want+1)
		}
		in.mu.Lock()
		in.expires = time.Now()
		in.mu.Unlock()
	}
}

// TestTokenIsRenewedOnce: requests that are refused together share the new token.
func TestTokenIsRenewedOnce(t *testing.T) {
	l, asked := loginLab(t, func(*http.Request) (int, string) { return 200, `{"token":"good","expires_in":3600}` })
	o := l.options()
	o.Keychain = fixed{}
	c, err := newClient(o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.repository("ghcr.io/a/x:1")
	if err != nil {
		t.Fatal(err)
	}
	hc, err := r.client(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	in := hc.Transport.(*login)
	now, err := in.current(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		offers := []challenge{{scheme: "bearer", params: map[string]string{"realm": l.url + "/token"}}}
		if p, err := in.renew(context.Background(), now.number, offers); err != nil || p.header != "Bearer good" {
			t.Errorf("got %q, %v", p.header, err)
		}
	}
	if n := len(asked()); n != 2 {
		t.Errorf("%d tokens, want the first and its successor", n)
	}
}

// TestRefreshTokenTakesOver: what a token server gives for the next time is used then.
func TestRefreshTokenTakesOver(t *testing.T) {
	n := 0
	l, asked := loginLab(t, func(r *http.Request) (int, string) {
		n++
		return 200, fmt.Sprintf(`{"token":"good","refresh_token":"next%d"}`, n)
	})
	o := l.options()
	o.Keychain = fixed{Username: "u", Password: "p"}
	c, err := newClient(o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.repository("ghcr.io/a/x:1")
	if err != nil {
		t.Fatal(err)
	}
	hc, err := r.client(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.small(context.Background(), "manifests/1", v1.Hash{})
		hc.Transport.(*login).expires = time.Now()
	}
	if got := asked(); len(got) != 2 || !strings.Contains(got[1], "refresh_token=next1") {
		t.Errorf("token server was asked %q", got)
	}
}

// TestTokenServerOverHTTP: a registry of https is not asked for a password in the open.
func TestTokenServerOverHTTP(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("was asked") }))
	defer srv.Close()
	ours := newAuthority(t)
	cert, key := ours.pair(t, "client")
	l, host := tlsLab(t, ours)
	l.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+srv.URL+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	certs := t.TempDir()
	writeFiles(t, certs+"/"+host, map[string][]byte{"ca.crt": ours.pem(), "client.cert": cert, "client.key": key})
	c, err := newClient(&Options{certs: []string{certs}, Keychain: fixed{Username: "u", Password: "p"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.resolveImages(context.Background(), []Wanted{{Reference: host + "/a/x:1"}}, "amd64")
	if err == nil || !strings.Contains(err.Error(), "from https to plain http") {
		t.Errorf("got %v", err)
	}
}

// A registry that breaks off all connections is asked how to log in once, by one image for
// all: otherwise each would go through all tries and their waits for itself.
func TestSilentDoorIsAskedOnce(t *testing.T) {
	r := regtest.New(t)
	var refs []string
	for i := range 5 {
		name := fmt.Sprintf("lab/tiny%d:1", i)
		tiny(r, name)
		refs = append(refs, "lab.test/"+name)
	}
	r.Break(regtest.Drop)
	_, err := lockCase(t, caseOptions(r), refs...)
	for _, ref := range refs {
		if err == nil || !strings.Contains(err.Error(), ref) {
			t.Errorf("error is not about %s: %v", ref, err)
		}
	}
	// Those that may have met a host with too much to do do not count.
	if n := r.Count(regtest.Ping); n > 2*maxTries || n != r.Count() {
		t.Errorf("asked %d times how to log in, %d times in all", n, r.Count())
	}
	r.Break(nil)
	mustLock(t, caseOptions(r), refs...)
}
