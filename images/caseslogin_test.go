package images

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"

	"atoll/test/regtest"
)

// user is a keychain with one user for every registry.
type user struct{ name, password string }

func (u user) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: u.name, Password: u.password}, nil
}

// TestSeveralChallenges (05): more than one way to log in, in any shape, and token
// servers and answers of every kind.
func TestSeveralChallenges(t *testing.T) {
	line := func(format string) func(realm, scope string) []string {
		return func(realm, scope string) []string {
			var lines []string
			for l := range strings.SplitSeq(format, "\n") {
				lines = append(lines, strings.NewReplacer("REALM", realm, "SCOPE", scope).Replace(l))
			}
			return lines
		}
	}
	answer := func(format string) func(string) string {
		return func(token string) string { return strings.ReplaceAll(format, "TOKEN", token) }
	}
	for _, tc := range []struct {
		name      string
		challenge string
		answer    string
		query     string // what the token server has to be asked with
	}{
		{name: "plain"},
		{name: "Negotiate first", challenge: "Negotiate\nBearer realm=\"REALM\",scope=\"SCOPE\""},
		{name: "Negotiate last", challenge: "Bearer realm=\"REALM\",scope=\"SCOPE\"\nNegotiate"},
		{name: "Negotiate says something", challenge: "Negotiate YII+abc/def==, Bearer realm=\"REALM\",scope=\"SCOPE\""},
		{name: "Basic first", challenge: "Basic realm=\"lab\"\nBearer realm=\"REALM\",scope=\"SCOPE\""},
		{name: "one line, Basic first", challenge: `Basic realm="a, b", Bearer realm="REALM",service="lab, inc",scope="SCOPE"`, query: "service=lab%2C+inc"},
		{name: "one line, Basic last", challenge: `Bearer realm="REALM",scope="SCOPE",service=lab, Basic realm="a"`, query: "service=lab"},
		{name: "odd case", challenge: `bEARER Service="lab" , Realm="REALM"  ,	scope="SCOPE"`, query: "service=lab"},
		{name: "realm with a query", challenge: `Bearer realm="REALM?tenant=7",service="lab"`, query: "tenant=7"},
		{name: "escaped quotes", challenge: `Bearer realm="REALM",service="a \"b\", c"`, query: "service=" + url.QueryEscape(`a "b", c`)},
		{name: "unknown parameters", challenge: `Bearer realm="REALM",scope="SCOPE",error="invalid_token",x=1`},
		{name: "trailing comma", challenge: `Bearer realm="REALM",scope="SCOPE",`},
		{name: "no service", challenge: `Bearer realm="REALM"`},
		{name: "access_token", answer: `{"access_token":"TOKEN"}`},
		{name: "both names", answer: `{"token":"TOKEN","access_token":"TOKEN","expires_in":60,"issued_at":"2026-01-02T03:04:05Z"}`},
		{name: "odd expiry", answer: `{"token":"TOKEN","expires_in":-5,"issued_at":"yesterday"}`},
		{name: "expired long ago", answer: `{"token":"TOKEN","expires_in":60,"issued_at":"1999-01-02T03:04:05Z"}`},
		{name: "expiry of 0", answer: `{"token":"TOKEN","expires_in":0}`},
	} {
		for _, realm := range []string{"registry", "beside", "elsewhere"} {
			t.Run(tc.name+"/"+realm, func(t *testing.T) {
				t.Parallel()
				r := regtest.New(t)
				tiny(r, "lab/tiny:1")
				a := &regtest.Auth{Realm: "http://" + map[string]string{"registry": r.Host, "beside": r.Beside, "elsewhere": r.Elsewhere}[realm] + "/token"}
				if tc.challenge != "" {
					a.Challenge = line(tc.challenge)
				}
				if tc.answer != "" {
					a.Answer = answer(tc.answer)
				}
				r.Login(a)
				s := newStore(t)
				locked := mustLock(t, caseOptions(r), "lab.test/lab/tiny:1")
				if err := mirrorCase(t, caseOptions(r), s, locked); err != nil {
					t.Fatal(err)
				}
				verify(t, s, locked)
				if n := r.Count(regtest.Token); n < 2 || n > 6 { // two runs
					t.Errorf("%d requests for a token", n)
				}
				for _, q := range r.Requests() {
					query := strings.ReplaceAll(q.Query, "%20", "+")
					if q.Kind == regtest.Token && (!strings.Contains(query, tc.query) || !strings.Contains(query, "scope=")) {
						t.Errorf("token is asked for with %q, want it to hold %q and a scope", q.Query, tc.query)
					}
				}
				checkPolite(t, r)
			})
		}
	}
}

// checkPolite looks whether no path was refused a login more than twice in a row, and no
// storage was shown a login.
func checkPolite(t *testing.T, r *regtest.Registry) {
	t.Helper()
	row := map[string]int{}
	for _, q := range r.Requests() {
		if row[q.Path]++; q.Status != 401 {
			row[q.Path] = 0
		}
		if row[q.Path] > 2 && q.Kind != regtest.Ping {
			t.Errorf("%s was refused for the %d. time in a row", q.Path, row[q.Path])
		}
		if q.Kind == regtest.Storage && q.Authorization != "" {
			t.Errorf("storage was shown %q", q.Authorization)
		}
	}
}

// TestNoWayToLogIn (05, d): what cannot be answered ends soon, and says what was offered.
func TestNoWayToLogIn(t *testing.T) {
	for _, tc := range []struct {
		name      string
		challenge []string
		says      []string
	}{
		{"Negotiate", []string{"Negotiate"}, []string{"negotiate", "basic", "bearer"}},
		{"several", []string{"Negotiate, NTLM"}, []string{"negotiate", "ntlm", "basic", "bearer"}},
		{"none", nil, []string{"denies access"}},
		{"garbage", []string{`",,=" "`}, []string{"denies access"}},
		{"no realm", []string{`Bearer service="lab"`}, []string{"realm"}},
		{"a file", []string{`Bearer realm="file:///etc/passwd"`}, []string{"realm"}},
		{"another scheme", []string{`Bearer realm="ftp://127.0.0.1/token"`}, []string{"realm"}},
		{"no URL", []string{`Bearer realm="http://[::1"`}, []string{"realm"}},
		{"control characters", []string{"Bearer realm=\"http://\x7f/\""}, []string{"header of its answer is malformed"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := regtest.New(t)
			tiny(r, "lab/tiny:1")
			r.Login(&regtest.Auth{Challenge: func(string, string) []string { return tc.challenge }})
			_, err := lockCase(t, caseOptions(r), "lab.test/lab/tiny:1")
			if err == nil {
				t.Fatal("got no error")
			}
			for _, part := range append(tc.says, "lab.test/lab/tiny:1") {
				if !strings.Contains(strings.ToLower(err.Error()), part) {
					t.Errorf("error does not say %q: %v", part, err)
				}
			}
			if n := r.Count(); n > 6 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestPassword: a password that is right is taken; a wrong one ends it soon; neither is
// shown to a storage or told in an error.
func TestPassword(t *testing.T) {
	for _, basic := range []bool{true, false} {
		for _, right := range []bool{true, false} {
			t.Run(fmt.Sprintf("basic %v right %v", basic, right), func(t *testing.T) {
				t.Parallel()
				r := regtest.New(t)
				tiny(r, "lab/tiny:1")
				r.Login(&regtest.Auth{User: "u", Password: "s3cret", Basic: basic, Realm: "http://" + r.Elsewhere + "/token"})
				r.Store(&regtest.Presign{At: r.Beside})
				o := caseOptions(r)
				o.Keychain = user{"u", "s3cret"}
				if !right {
					o.Keychain = user{"u", "s3cret2"}
				}
				locked, err := lockCase(t, o, "lab.test/lab/tiny:1")
				checkNoSecret(t, err)
				if right {
					if err != nil {
						t.Fatal(err)
					}
					if err := mirrorCase(t, o, newStore(t), locked); err != nil {
						t.Error(err)
					}
				} else if err == nil || !strings.Contains(err.Error(), "docker login") {
					t.Errorf("got %v, want a hint how to log in", err)
				}
				if n := r.Count(); !right && n > 8 {
					t.Errorf("%d requests with a wrong password", n)
				}
				checkPolite(t, r)
			})
		}
	}
}

// TestTokenDies (06): a token, or a signed URL, that is good for less than the work takes.
// A token may run out while its request waits, more than once.
func TestTokenRunsOutWhileWaiting(t *testing.T) {
	r := regtest.New(t)
	tiny(r, "lab/tiny:1")
	r.Login(&regtest.Auth{Answer: func(token string) string { return fmt.Sprintf(`{"token":%q,"expires_in":1}`, token) }})
	o := caseOptions(r)
	locked := mustLock(t, o, "lab.test/lab/tiny:1")
	waits := 0
	r.Break(regtest.On(func(q regtest.Request, a *regtest.Answer) {
		if waits < 3 && a.Status/100 == 2 {
			waits++
			regtest.Refuse(http.StatusTooManyRequests, "Retry-After", "1")(q, a)
			r.Expire()
		}
	}, regtest.Blob))
	s := newStore(t)
	o.Jobs = 1 // each wait ends the token of the request that waits
	if err := mirrorCase(t, o, s, locked); err != nil {
		t.Fatal(err)
	}
	if waits != 3 {
		t.Errorf("made to wait %d times, want 3", waits)
	}
	verify(t, s, locked)
}

func TestTokenDies(t *testing.T) {
	for _, tc := range []struct {
		name    string
		auth    *regtest.Auth
		presign int // uses of a URL; 0 without a storage
		jobs    int
		expire  bool // all of a sudden, after half of the large layer
	}{
		{"tokens of one request", &regtest.Auth{Uses: 1}, 0, 1, false},
		{"tokens of two requests", &regtest.Auth{Uses: 2}, 0, 1, false},
		{"token expires midway", &regtest.Auth{}, 0, 4, true},
		{"token expires midway, elsewhere", &regtest.Auth{Realm: "elsewhere"}, 0, 4, true},
		{"URLs of one request", nil, 1, 4, false},
		{"URL expires midway", nil, 5, 4, true},
		{"both expire midway", &regtest.Auth{}, 5, 4, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := regtest.New(t)
			img := tiny(r, "lab/tiny:1")
			for i := range 6 {
				img.Layers = append(img.Layers, regtest.Bytes(uint64(10+i), 20_000))
			}
			r.AddImage(img, "lab/tiny:1")
			if tc.auth != nil && tc.auth.Realm != "" {
				tc.auth.Realm = "http://" + r.Elsewhere + "/token"
			}
			r.Login(tc.auth)
			if tc.presign > 0 {
				r.Store(&regtest.Presign{At: r.Elsewhere, Uses: tc.presign})
			}
			large := hashOf(img.Layers[1])
			o := caseOptions(r)
			o.Jobs = tc.jobs
			locked := mustLock(t, o, "lab.test/lab/tiny:1")
			r.Forget()
			broken := false
			r.Break(regtest.Of(func(q regtest.Request, a *regtest.Answer) {
				if broken || len(a.Body) < 600_000 {
					return
				}
				broken = true
				a.CutAt = len(a.Body) / 2
				if tc.expire {
					r.Expire()
				}
			}, large.String()))
			s := newStore(t)
			if err := mirrorCase(t, o, s, locked); err != nil {
				t.Fatal(err)
			}
			verify(t, s, locked)
			checkPolite(t, r)
			if n := r.Sent(large); n > 600_000+100_000 {
				t.Errorf("%d bytes of a layer of 600000 were sent: it did not go on where it was cut", n)
			}
			if tc.auth != nil && r.Count(regtest.Token) < 2 {
				t.Errorf("%d tokens", r.Count(regtest.Token))
			}
		})
	}
}

// TestTokenOfNoUse (06): a token server that gives tokens that are never good does not
// keep anyone busy for ever.
func TestTokenOfNoUse(t *testing.T) {
	r := regtest.New(t)
	tiny(r, "lab/tiny:1")
	locked := mustLock(t, caseOptions(r), "lab.test/lab/tiny:1")
	r.Forget()
	r.Login(&regtest.Auth{Answer: func(string) string { return `{"token":"s3cret"}` }})
	err := mirrorCase(t, caseOptions(r), newStore(t), locked)
	checkClear(t, err, "lab.test/lab/tiny:1")
	checkPolite(t, r)
	if n := r.Count(); n > 20 {
		t.Errorf("%d requests", n)
	}
}

// TestRedirects: to a private address, to another port, round and round, to what is no
// web server.
func TestRedirects(t *testing.T) {
	to := func(location string) regtest.Fault {
		return func(q regtest.Request, a *regtest.Answer) {
			regtest.Refuse(302)(q, a)
			a.Header.Set("Location", location)
		}
	}
	for _, kind := range []regtest.Kind{regtest.Ping, regtest.Manifest, regtest.Blob, regtest.Token} {
		for _, location := range []string{"", "file:///etc/passwd", "gopher://127.0.0.1/", "http://", "://", "//", "?", "javascript:1"} {
			t.Run(string(kind)+" "+location, func(t *testing.T) {
				t.Parallel()
				r := regtest.New(t)
				tiny(r, "lab/tiny:1")
				locked := mustLock(t, caseOptions(r), "lab.test/lab/tiny:1")
				r.Forget()
				r.Login(&regtest.Auth{})
				r.Break(regtest.On(to(location), kind))
				err := mirrorCase(t, caseOptions(r), newStore(t), locked)
				if err == nil && kind != regtest.Ping {
					t.Fatal("got no error")
				}
				if err != nil {
					checkClear(t, err, "lab.test/lab/tiny:1")
				}
				if n := r.Count(); n > 250 {
					t.Errorf("%d requests", n)
				}
			})
		}
	}
	// Manifests, too, may be elsewhere, and there nobody is shown the login.
	r := regtest.New(t)
	tiny(r, "lab/tiny:1")
	r.Login(&regtest.Auth{})
	var shown []string
	r.Break(func(q regtest.Request, a *regtest.Answer) {
		if q.Kind == regtest.Manifest && q.Host == r.Host && q.Authorization != "" {
			to("http://"+r.Elsewhere+q.Path)(q, a)
		}
		if q.Host == r.Elsewhere {
			shown = append(shown, q.Authorization)
		}
	})
	bounded(t, func(ctx context.Context) error {
		c, err := newClient(caseOptions(r))
		if err != nil {
			return err
		}
		_, err = c.resolveImages(ctx, []Wanted{{Reference: "lab.test/lab/tiny:1"}}, "amd64")
		return err
	})
	if len(shown) == 0 || shown[0] != "" || slices.Contains(shown, "Bearer pass-1") {
		t.Errorf("the other host was shown %q", shown)
	}
}
