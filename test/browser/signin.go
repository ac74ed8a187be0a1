package browser

import (
	"net/http"
	"net/url"
	"strings"
)

// Site is a site with the sign-in of the Kubeflow stack, by AuthService or oauth2-proxy, and
// Dex's form. Its home page shows the headers that it got.
type Site struct {
	Host           string // of https://HOST; without a port, plain HTTP is checked too
	User, Password string
	Cookie         string // the session's name
	HTTPOnly       bool   // scripts cannot read it
	SignOut        string // path where the dashboard's button for it leads
	Revokes        bool   // signing out ends the session for whoever has its cookie
}

// AuthService and OAuth2Proxy return the site with what is known of them.
func (s Site) AuthService() Site {
	s.Cookie, s.SignOut, s.Revokes = "authservice_session", "/authservice/site/after_logout", true
	return s
}

// OAuth2Proxy is documented at [Site.AuthService].
func (s Site) OAuth2Proxy() Site {
	s.Cookie, s.HTTPOnly, s.SignOut = "oauth2_proxy_kubeflow", true, "/oauth2/sign_out"
	return s
}

// CheckSession checks a session from its beginning to its end, with a restart of the site in
// the middle.
func (s Site) CheckSession(b *Browser, restart func()) {
	b.t.Helper()
	home := "https://" + s.Host + "/"
	b.Open(home)
	s.awaitForm(b, "sign in")
	if _, ok := b.Cookie(s.Cookie); ok {
		b.t.Errorf("the cookie %s is there before the password", s.Cookie)
	}

	s.submit(b, s.Password+"x")
	b.Await("wrong password", func(p Page) bool { return isForm(p) && strings.Contains(p.Text, "Invalid") })
	if _, ok := b.Cookie(s.Cookie); ok {
		b.t.Errorf("the cookie %s is there after a wrong password", s.Cookie)
	}

	s.submit(b, s.Password)
	s.awaitHome(b, "signed in", home)
	if c, ok := b.Cookie(s.Cookie); !ok || !c.Secure || c.HTTPOnly != s.HTTPOnly {
		b.t.Errorf("cookie is %+v", c)
	}
	if seen := strings.Contains(b.Evaluate("document.cookie"), s.Cookie); seen == s.HTTPOnly {
		b.t.Errorf("scripts see the session's cookie: %v", seen)
	}

	// From plain HTTP the same page comes by HTTPS, with one redirect and no other sign-in.
	if !strings.Contains(s.Host, ":") {
		b.Visits()
		b.Open("http://" + s.Host + "/?a=b")
		s.awaitHome(b, "from plain http", home+"?a=b")
		if v := b.Visits(); len(v) != 2 || v[0].URL != "http://"+s.Host+"/?a=b" || v[0].Location != home+"?a=b" {
			b.t.Errorf("signed in, plain HTTP leads to %+v", v)
		}
	}

	restart()
	b.Open(home)
	s.awaitHome(b, "after a restart", home)

	session, ok := b.Cookie(s.Cookie)
	if !ok {
		b.t.Fatalf("signed in, and there is no cookie %s", s.Cookie)
	}
	// The dashboard's button does as a link does.
	switch to := b.Evaluate(`document.querySelector("#sign-out")?.getAttribute("href") ?? ""`); to {
	case "":
		b.Evaluate("location.assign(\"" + s.SignOut + "\"), \"\"")
	case s.SignOut:
		b.Click("#sign-out")
	default:
		b.t.Errorf("the dashboard's button leads to %s", to)
	}
	s.awaitForm(b, "signed out")
	if c, ok := b.Cookie(s.Cookie); ok && s.HTTPOnly {
		b.t.Errorf("signed out, and the cookie is still %+v", c)
	}
	b.Open(home)
	s.awaitForm(b, "signed out for good")
	if s.Revokes {
		b.SetCookie(session)
		b.Open(home)
		s.awaitForm(b, "with the old cookie")
	}
}

// CheckPlain checks a sign-in that begins with plain HTTP, as it does where somebody types a
// name and no scheme.
func (s Site) CheckPlain(b *Browser) {
	b.t.Helper()
	b.Open("http://" + s.Host + "/?a=b")
	s.awaitForm(b, "plain sign in")
	s.submit(b, s.Password)
	s.awaitHome(b, "plain signed in", "https://"+s.Host+"/?a=b")
	for _, v := range b.Visits() {
		if strings.HasPrefix(v.URL, "http://") && (v.Status != http.StatusMovedPermanently || !strings.HasPrefix(v.Location, "https://")) {
			b.t.Errorf("plain HTTP is answered with %+v", v)
		}
	}
}

// awaitForm waits for Dex's form. oauth2-proxy has a page with a button before it.
func (s Site) awaitForm(b *Browser, what string) {
	b.t.Helper()
	button := func(p Page) bool { return p.Status == http.StatusForbidden && strings.Contains(p.Text, "Sign in with") }
	p := b.Await(what, func(p Page) bool { return isForm(p) || button(p) })
	if button(p) {
		b.Click("button[type=submit]")
		p = b.Await(what+" form", isForm)
	}
	if u, err := url.Parse(p.URL); err != nil || u.Scheme != "https" || u.Host != s.Host || !strings.HasPrefix(u.Path, "/dex/") {
		b.t.Errorf("Dex's form is at %s", p.URL)
	}
}

// isForm says whether the page is Dex's form for a password.
func isForm(p Page) bool { return strings.Contains(p.Text, "Log in to Your Account") }

func (s Site) submit(b *Browser, password string) {
	b.t.Helper()
	b.Fill("#login", s.User)
	b.Fill("#password", password)
	b.Click("#submit-login")
}

// awaitHome waits for the home page, which was sent who is signed in.
func (s Site) awaitHome(b *Browser, what, address string) {
	b.t.Helper()
	b.Await(what, func(p Page) bool {
		return p.URL == address && p.Status == http.StatusOK && strings.Contains(strings.ToLower(p.Text), "kubeflow-userid") && strings.Contains(p.Text, s.User)
	})
}
