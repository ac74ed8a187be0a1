package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"regexp"
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

// stage is what the script of a page sees of a browser, and prints what the script does.
const stage = `
global.document = {cookie: process.argv[1], getElementById: () => ({})};
global.fetch = async (url, options) => (console.log(JSON.stringify({url, ...options})), {status: 201, json: async () => ({afterLogoutURL: "/home"})});
global.location = {replace: (url) => console.log(JSON.stringify({go: url}))};
`

var script = regexp.MustCompile(`(?s)<script>(.*)</script>`)

// runPage runs the script of the page that signs out and does what it wants: one request,
// then another page.
func (b *browser) runPage(t *testing.T, p page) page {
	t.Helper()
	code := script.FindStringSubmatch(p.body)
	if code == nil {
		t.Fatalf("%s has no script:\n%s", p.url, p.body)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed, so no page's script runs")
	}
	out, err := exec.Command(node, "-e", stage+code[1], "a=b; "+b.cookies(t)+"; c=d").Output()
	if err != nil {
		t.Fatalf("the page's script: %v", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(out))
	var ask struct {
		URL, Method string
		Headers     map[string]string
	}
	var then struct{ Go string }
	if err := errors.Join(decoder.Decode(&ask), decoder.Decode(&then)); err != nil || then.Go != "/home" {
		t.Fatalf("the page's script did this: %s, %v", out, err)
	}
	to, err := p.url.Parse(ask.URL)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(ask.Method, to.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range ask.Headers {
		req.Header.Set(k, v)
	}
	answer := b.do(t, req)
	var home struct{ AfterLogoutURL string }
	if err := json.Unmarshal([]byte(answer.body), &home); err != nil || answer.status != http.StatusCreated {
		t.Fatalf("%s %s: %d\n%s", req.Method, req.URL, answer.status, answer.body)
	}
	return b.get(t, "https://node"+home.AfterLogoutURL)
}
