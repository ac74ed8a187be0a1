// Package browser drives a real browser, headless Chromium, as far as tests of a sign-in
// need one: pages, forms, cookies, and a picture of what was seen.
//
// The browser knows the hosts that it is told of and nothing else: it asks no name server,
// and a test fails if a page wanted something from another host.
package browser

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
)

// Options are what a browser knows.
type Options struct {
	// Hosts are where "HOST:PORT" of a URL leads: an address and a port.
	Hosts map[string]string
	// Certificates are taken though nobody vouches for them, no others.
	Certificates []*x509.Certificate
	// Pictures is the folder for pictures of pages. Default: one that goes with the test.
	Pictures string
	// Patience is how long a page may take. Default: a minute.
	Patience time.Duration
}

// Browser is a window that runs until its test ends.
type Browser struct {
	t        testing.TB
	ctx      context.Context
	pictures string
	patience time.Duration
	hosts    []string // of Options

	mu     sync.Mutex
	visits []Visit
	others []string // requests for other hosts
	seen   int      // pictures
}

// Visit is a document that a server answered with, be it a redirect.
type Visit struct {
	URL      string
	Status   int
	Location string // of a redirect
}

// Page is what the window shows.
type Page struct {
	URL, Title, Text string
	Status           int // of the document
}

// Start starts a browser. The test is skipped where none is installed.
func Start(ctx context.Context, t testing.TB, o Options) *Browser {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed (package chromium)")
	}
	b := &Browser{t: t, pictures: o.Pictures, patience: cmp.Or(o.Patience, time.Minute)}
	if b.pictures == "" {
		b.pictures = t.TempDir()
	}
	if err := os.MkdirAll(b.pictures, 0o755); err != nil {
		t.Fatal(err)
	}
	var rules, pins []string
	for from, to := range o.Hosts {
		rules = append(rules, "MAP "+from+" "+to)
		b.hosts = append(b.hosts, from)
	}
	slices.Sort(rules)
	for _, c := range o.Certificates {
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		pins = append(pins, base64.StdEncoding.EncodeToString(sum[:]))
	}
	flags := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(program),
		chromedp.UserDataDir(t.TempDir()), // pins count only with one
		chromedp.WindowSize(1280, 900),
		chromedp.WSURLReadTimeout(b.patience),
		chromedp.Flag("host-resolver-rules", strings.Join(append(rules, "MAP * ~NOTFOUND"), ", ")),
		chromedp.Flag("ignore-certificate-errors-spki-list", strings.Join(pins, ",")),
		chromedp.Flag("disable-component-update", true),
		// What plain HTTP does is to be seen. The other names are chromedp's.
		chromedp.Flag("disable-features", "HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,Translate,BlinkGenPropertyTrees"),
	)
	if os.Geteuid() == 0 {
		flags = append(flags, chromedp.NoSandbox) // it does not run as root with one
	}
	ctx, stop := chromedp.NewExecAllocator(ctx, flags...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	b.ctx = ctx
	if err := chromedp.Listen(ctx, b.listen); err != nil { // it starts the browser
		t.Fatalf("starting chromium: %v", err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatalf("starting chromium: %v", err)
	}
	t.Cleanup(func() {
		for _, other := range b.others {
			t.Errorf("a page wanted %s", other)
		}
	})
	return b
}

// Certificate is what a TLS server at the address shows to who asks for the host.
func Certificate(ctx context.Context, addr, host string) (*x509.Certificate, error) {
	// It is fetched to be the only one that is trusted: there is nothing to check it by.
	d := tls.Dialer{Config: &tls.Config{ServerName: host, InsecureSkipVerify: true}}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("fetching the certificate of %s: %w", addr, err)
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// listen keeps what the pages' requests are answered with.
func (b *Browser) listen(event any) {
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.request(e.Request.URL)
		if e.RedirectResponse != nil && e.Type == network.ResourceTypeDocument {
			b.visit(e.RedirectResponse, e.Request.URL)
		}
	case *network.EventResponseReceived:
		if e.Type == network.ResourceTypeDocument {
			b.visit(e.Response, "")
		}
	}
}

func (b *Browser) request(text string) {
	u, err := url.Parse(text)
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "ws" && u.Scheme != "wss") {
		return // data:, about: and the like are of no host
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil || !slices.Contains(b.hosts, hostPort(u)) {
		b.others = append(b.others, text)
	}
}

// hostPort is a URL's host with the port, be it the scheme's.
func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	if u.Scheme == "http" || u.Scheme == "ws" {
		return u.Host + ":80"
	}
	return u.Host + ":443"
}

func (b *Browser) visit(r *network.Response, to string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.visits = append(b.visits, Visit{r.URL, int(r.Status), to})
}

// Visits are the documents since the last call, in order.
func (b *Browser) Visits() []Visit {
	b.mu.Lock()
	defer b.mu.Unlock()
	visits := b.visits
	b.visits = nil
	return visits
}

// do runs an action, which must succeed.
func do[T any](b *Browser, what string, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, b.patience)
	defer cancel()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		b.Picture("failed")
		b.t.Fatalf("%s: %v; the page is\n%+v\nafter %+v", what, err, b.Page(), b.Visits())
	}
	return value
}

// Open opens a URL, as if it was typed.
func (b *Browser) Open(address string) {
	b.t.Helper()
	do(b, "opening "+address, chromedp.Navigate(address))
}

// Fill types text into the field that the CSS selector finds.
func (b *Browser) Fill(selector, text string) {
	b.t.Helper()
	field := chromedp.CSS(selector)
	do(b, "filling "+selector, chromedp.Steps(chromedp.Clear(field), chromedp.SendKeys(field, text)))
}

// Click clicks on what the CSS selector finds.
func (b *Browser) Click(selector string) {
	b.t.Helper()
	do(b, "clicking "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// Evaluate returns what an expression of JavaScript is on the page: a string.
func (b *Browser) Evaluate(expression string) string {
	b.t.Helper()
	return do(b, expression, chromedp.Evaluate[string](expression))
}

// now is an expression of JavaScript for a [Page].
const now = `({
	loaded: document.readyState === "complete",
	url: location.href, title: document.title, text: document.body?.innerText ?? "",
	status: performance.getEntriesByType("navigation")[0]?.responseStatus ?? 0,
})`

// Page is what the window shows now. Between two pages it is nothing.
func (b *Browser) Page() Page {
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	p, err := chromedp.Run(ctx, chromedp.Evaluate[struct {
		Loaded           bool
		URL, Title, Text string
		Status           int
	}](now))
	if err != nil || !p.Loaded {
		return Page{}
	}
	return Page{URL: p.URL, Title: p.Title, Text: p.Text, Status: p.Status}
}

// Await waits until the window shows what it should, takes a picture of that, and returns it.
func (b *Browser) Await(what string, is func(Page) bool) Page {
	b.t.Helper()
	var p Page
	for deadline := time.Now().Add(b.patience); time.Now().Before(deadline) && b.ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
		if p = b.Page(); p.URL != "" && is(p) {
			b.Picture(what)
			return p
		}
	}
	b.Picture("no " + what)
	b.t.Fatalf("%s did not come: the page is\n%+v\nafter %+v", what, p, b.Visits())
	return p
}

// Cookie is one of the cookies of all hosts.
func (b *Browser) Cookie(name string) (*network.Cookie, bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, b.patience)
	defer cancel()
	all, err := chromedp.Call(ctx, storage.GetCookies, storage.GetCookiesParams{})
	if err != nil {
		b.t.Fatalf("reading cookies: %v", err)
	}
	i := slices.IndexFunc(all.Cookies, func(c *network.Cookie) bool { return c.Name == name })
	if i < 0 {
		return nil, false
	}
	return all.Cookies[i], true
}

// SetCookie gives the browser a cookie that [Browser.Cookie] returned.
func (b *Browser) SetCookie(c *network.Cookie) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, b.patience)
	defer cancel()
	param := &network.CookieParam{Name: c.Name, Value: c.Value, Domain: c.Domain, Path: c.Path, Secure: c.Secure, HTTPOnly: c.HTTPOnly, SameSite: c.SameSite}
	if _, err := chromedp.Call(ctx, storage.SetCookies, storage.SetCookiesParams{Cookies: []*network.CookieParam{param}}); err != nil {
		b.t.Fatalf("setting the cookie %s: %v", c.Name, err)
	}
}

// Picture writes what the window shows to a file NN-NAME.png of the folder.
func (b *Browser) Picture(name string) {
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	b.seen++
	file := fmt.Sprintf("%02d-%s.png", b.seen, strings.ReplaceAll(name, " ", "-"))
	if err = errors.Join(err, os.WriteFile(filepath.Join(b.pictures, file), png, 0o644)); err != nil {
		b.t.Logf("no picture of %s: %v", name, err)
	}
}
