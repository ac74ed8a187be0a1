package gateway

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A browser keeps cookies and follows redirects as a person's does.
type browser struct {
	*http.Client
	set []*http.Cookie // that it was given
}

// A page is what a browser shows in the end.
type page struct {
	url    *url.URL
	status int
	header http.Header
	body   string
}

// newBrowser calls the gateway "node", with a node's ports.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{Client: &http.Client{
		Jar: secureJar{jar},
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				to := map[string]string{"node:80": httpPort, "node:443": httpsPort}[addr]
				return (&net.Dialer{}).DialContext(ctx, network, to)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// secureJar drops cookies that are Secure and came by plain HTTP, as browsers do and the
// standard library does not: RFC 6265bis, section 5.7.
type secureJar struct{ http.CookieJar }

func (j secureJar) SetCookies(u *url.URL, cookies []*http.Cookie) {
	var kept []*http.Cookie
	for _, c := range cookies {
		if u.Scheme == "https" || !c.Secure {
			kept = append(kept, c)
		}
	}
	j.CookieJar.SetCookies(u, kept)
}

// get asks for one page.
func (b *browser) get(t *testing.T, url string) page {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b.do(t, req)
}

func (b *browser) do(t *testing.T, req *http.Request) page {
	t.Helper()
	resp, err := b.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	b.set = append(b.set, resp.Cookies()...)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return page{req.URL, resp.StatusCode, resp.Header, string(body)}
}

// open goes where the redirects lead.
func (b *browser) open(t *testing.T, url string) page {
	t.Helper()
	return b.follow(t, b.get(t, url))
}

func (b *browser) follow(t *testing.T, p page) page {
	t.Helper()
	for range 20 {
		to := p.header.Get("Location")
		if p.status < 300 || p.status > 399 || to == "" {
			return p
		}
		next, err := p.url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		p = b.get(t, next.String())
	}
	t.Fatalf("%s: redirected without end", p.url)
	return p
}

var formAction = regexp.MustCompile(`<form[^>]* action="([^"]*)"`)

// signIn opens a page as somebody does who is not signed in, and returns what the browser
// shows after the password.
func (b *browser) signIn(t *testing.T, start, password string) page {
	t.Helper()
	p := b.open(t, start)
	if strings.Contains(p.body, "/oauth2/start") { // oauth2-proxy's page with a button
		next, err := p.url.Parse("/oauth2/start?rd=" + url.QueryEscape(p.url.RequestURI()))
		if err != nil {
			t.Fatal(err)
		}
		p = b.open(t, next.String())
	}
	action := formAction.FindStringSubmatch(p.body)
	if action == nil || !strings.HasPrefix(p.url.Path, "/dex/") {
		t.Fatalf("%s leads to %s, %d, without Dex's form:\n%s", start, p.url, p.status, p.body)
	}
	to, err := p.url.Parse(strings.ReplaceAll(action[1], "&amp;", "&"))
	if err != nil {
		t.Fatal(err)
	}
	if to.Scheme != "https" {
		t.Errorf("the password would be sent to %s", to)
	}
	form := url.Values{"login": {user}, "password": {password}}
	req, err := http.NewRequest(http.MethodPost, to.String(), strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.follow(t, b.do(t, req))
}

// sessions are the cookies of those who sign people in.
var sessions = []string{"authservice_session", "oauth2_proxy_kubeflow"}

// session returns the value of the session's cookie, if the browser has one.
func (b *browser) session(t *testing.T) string {
	t.Helper()
	for _, c := range b.Jar.Cookies(&url.URL{Scheme: "https", Host: "node", Path: "/"}) {
		if slices.Contains(sessions, c.Name) {
			return c.Value
		}
	}
	return ""
}

// cookies returns the header that the browser would send to a page of the node.
func (b *browser) cookies(t *testing.T) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "https://node/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range b.Jar.Cookies(req.URL) {
		req.AddCookie(c)
	}
	return req.Header.Get("Cookie")
}

// endSession asks AuthService to end the session, as the script of its page does, and opens
// the page that it names.
func (b *browser) endSession(t *testing.T) page {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "https://node/authservice/logout", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+b.session(t))
	answer := b.do(t, req)
	var home struct{ AfterLogoutURL string }
	if err := json.Unmarshal([]byte(answer.body), &home); err != nil || answer.status != http.StatusCreated {
		t.Fatalf("%s %s: %d\n%s", req.Method, req.URL, answer.status, answer.body)
	}
	return b.get(t, "https://node"+home.AfterLogoutURL)
}
