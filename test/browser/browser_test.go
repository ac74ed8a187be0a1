package browser

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// serveTLS serves a site with a certificate of its own that nobody vouches for.
func serveTLS(t *testing.T, h http.Handler) (addr string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func site(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	switch r.URL.Path {
	case "/":
		http.SetCookie(w, &http.Cookie{Name: "seen", Value: "1", Secure: true})
		http.SetCookie(w, &http.Cookie{Name: "hidden", Value: "2", Secure: true, HttpOnly: true})
		fmt.Fprint(w, `<title>Door</title><form method=post action=/in><input id=name name=name><button>in</button></form>`)
	case "/in":
		http.Redirect(w, r, "/hall?name="+r.FormValue("name"), http.StatusSeeOther)
	case "/hall":
		fmt.Fprintf(w, `<title>Hall</title>hello %s`, r.FormValue("name"))
	case "/cookie":
		if c, err := r.Cookie("hidden"); err == nil {
			fmt.Fprint(w, "hidden is "+c.Value)
		}
	case "/out":
		http.SetCookie(w, &http.Cookie{Name: "hidden", MaxAge: -1, Secure: true, HttpOnly: true})
		fmt.Fprint(w, "gone")
	case "/chatty":
		fmt.Fprint(w, `<link rel=stylesheet href=https://fonts.example/a.css>chatty`)
	default:
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, "no such page")
	}
}

func TestBrowser(t *testing.T) {
	secure := serveTLS(t, http.HandlerFunc(site))
	plain := httptest.NewServer(http.RedirectHandler("https://site.test/", http.StatusMovedPermanently))
	defer plain.Close()
	cert, err := Certificate(t.Context(), secure, "site.test")
	if err != nil {
		t.Fatal(err)
	}
	pictures := t.TempDir()
	b := Start(t.Context(), t, Options{
		Hosts: map[string]string{
			"site.test:443": secure, "site.test:80": plain.Listener.Addr().String(),
			"other.test:443": serveTLS(t, http.HandlerFunc(site)),
		},
		Certificates: []*x509.Certificate{cert}, Pictures: pictures,
	})

	b.Open("http://site.test/")
	b.Await("door", func(p Page) bool { return p.URL == "https://site.test/" && p.Title == "Door" && p.Status == 200 })
	want := []Visit{{"http://site.test/", 301, "https://site.test/"}, {"https://site.test/", 200, ""}}
	if got := b.Visits(); !slices.Equal(got, want) {
		t.Errorf("visits are %+v, want %+v", got, want)
	}
	b.Fill("#name", "Ann")
	b.Click("button")
	b.Await("hall", func(p Page) bool { return p.URL == "https://site.test/hall?name=Ann" && p.Text == "hello Ann" })
	if got := b.Visits(); len(got) != 2 || got[0].Status != 303 {
		t.Errorf("visits are %+v", got)
	}
	hidden, ok := b.Cookie("hidden")
	if !ok || hidden.Value != "2" || !hidden.Secure || !hidden.HTTPOnly {
		t.Fatalf("cookie is %+v", hidden)
	}
	b.Open("https://site.test/out")
	b.Await("gone", func(p Page) bool { return p.Text == "gone" })
	if c, ok := b.Cookie("hidden"); ok {
		t.Errorf("cookie is still %+v", c)
	}
	b.SetCookie(hidden)
	b.Open("https://site.test/cookie")
	b.Await("the cookie again", func(p Page) bool { return p.Text == "hidden is 2" })
	if got := b.Evaluate("document.cookie"); got != "seen=1" {
		t.Errorf("scripts see the cookies %q", got)
	}
	b.Open("https://site.test/none")
	b.Await("none", func(p Page) bool { return p.Status == http.StatusTeapot })
	if entries, err := filepath.Glob(pictures + "/*.png"); err != nil || len(entries) != 5 {
		t.Errorf("pictures: %v %v", entries, err)
	} else if png, err := os.ReadFile(entries[0]); err != nil || !strings.HasPrefix(string(png), "\x89PNG") {
		t.Errorf("%s is no picture: %v", entries[0], err)
	}

	if _, err := chromedp.Run(b.ctx, chromedp.Navigate("https://other.test/")); err == nil || !strings.Contains(err.Error(), "ERR_CERT_AUTHORITY_INVALID") {
		t.Errorf("with another certificate: %v", err)
	}
	if len(b.others) != 0 {
		t.Errorf("the pages wanted %q", b.others)
	}
	b.Open("https://site.test/chatty")
	b.Await("chatty", func(p Page) bool { return p.Text == "chatty" })
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.others, []string{"https://fonts.example/a.css"}) {
		t.Errorf("the page wanted %q", b.others)
	}
	b.others = nil
}
