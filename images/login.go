package images

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Logging in is not left to go-containerregistry. Its transport refuses a token server at
// a private address, which closed networks have; it knows one challenge a line; it pings
// the registry for every repository anew; and it gets a token as often as requests meet
// that hold an old one.

const (
	// maxToken bounds a token server's answer, in bytes.
	maxToken = 64 << 10
	// tokenLife is how long a token is good whose server does not say, by the protocol.
	tokenLife = time.Minute
)

// loginError says that a registry offers no way to log in that is known here.
type loginError struct {
	Host    string
	Offered []string // schemes
}

func (e *loginError) Error() string {
	return fmt.Sprintf("%s wants a login by %s; known are Basic and Bearer", e.Host, strings.Join(e.Offered, " or "))
}

// door is how to log in at one registry. All its repositories share it.
type door struct {
	base *url.URL     // scheme and host
	http *http.Client // without a login
	idle time.Duration

	mu     sync.Mutex
	known  bool
	offers []challenge
}

// challenges asks the registry, once, how to log in. None means that it need not be.
func (d *door) challenges(ctx context.Context) ([]challenge, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known {
		return d.offers, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base.JoinPath("v2/").String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return nil, err
	}
	drain(resp)
	if resp.StatusCode == http.StatusUnauthorized {
		d.offers = challenges(resp.Header)
	}
	d.known = true // whatever else it said: the repository's own answers count
	return d.offers, nil
}

// login is a transport that logs in for one repository. A login that is refused once is
// renewed once: tokens live shorter than layers take.
type login struct {
	inner http.RoundTripper
	door  *door
	auth  authn.Authenticator
	scope string

	mu      sync.Mutex
	started bool
	header  string // Authorization; empty for none
	expires time.Time
	number  int // of the login
}

func (l *login) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != l.door.base.Host || req.URL.Scheme != l.door.base.Scheme {
		return l.inner.RoundTrip(req) // redirected: the login is none of its business
	}
	header, number, err := l.current(req.Context())
	if err != nil {
		return nil, err
	}
	resp, err := l.send(req, header)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	offers := challenges(resp.Header)
	if len(offers) == 0 {
		return resp, nil
	}
	// The refusal must be over before a token is asked for: that may be the same host,
	// and it may stand no two requests at once.
	said, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // that it was refused is what counts
	resp.Body.Close()
	again, err := l.renew(req.Context(), number, offers)
	if err != nil {
		return nil, err
	}
	if again == "" || again == header { // nothing better to say
		resp.Body = io.NopCloser(bytes.NewReader(said))
		return resp, nil
	}
	return l.send(req, again)
}

func (l *login) send(req *http.Request, header string) (*http.Response, error) {
	req = req.Clone(req.Context())
	if header != "" {
		req.Header.Set("Authorization", header)
	}
	return l.inner.RoundTrip(req)
}

// current gives the login, made anew if it is past its time.
func (l *login) current(ctx context.Context) (header string, number int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.started && (l.expires.IsZero() || time.Now().Before(l.expires)) {
		return l.header, l.number, nil
	}
	offers, err := l.door.challenges(ctx)
	if err != nil {
		return "", 0, err
	}
	var unknown *loginError
	if err := l.make(ctx, offers, l.scope); err != nil && !errors.As(err, &unknown) { // that may do without
		return "", 0, err
	}
	l.started = true
	return l.header, l.number, nil
}

// renew makes a login by the challenges of a refusal, unless another request has since.
func (l *login) renew(ctx context.Context, number int, offers []challenge) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.number != number {
		return l.header, nil
	}
	err := l.make(ctx, offers, "")
	return l.header, err
}

// make logs in by the best of the challenges. The scope is theirs if none is given; then
// the repository's own if they have none either.
func (l *login) make(ctx context.Context, offers []challenge, scope string) error {
	if len(offers) == 0 {
		return nil
	}
	auth, err := authn.Authorization(ctx, l.auth)
	if err != nil {
		return fmt.Errorf("getting credentials for %s: %w", l.door.base.Host, err)
	}
	var basic bool
	var schemes []string
	for _, c := range offers {
		if c.scheme == "bearer" {
			return l.bearer(ctx, c, auth, scope)
		}
		basic = basic || c.scheme == "basic"
		schemes = append(schemes, c.scheme)
	}
	switch {
	case !basic:
		return &loginError{Host: l.door.base.Host, Offered: schemes}
	case auth.Username != "" || auth.Password != "":
		l.set("Basic "+base64.StdEncoding.EncodeToString([]byte(auth.Username+":"+auth.Password)), time.Time{})
	case auth.Auth != "":
		l.set("Basic "+auth.Auth, time.Time{})
	}
	return nil
}

func (l *login) set(header string, expires time.Time) {
	l.header, l.expires = header, expires
	l.number++
}

// bearer gets a token.
func (l *login) bearer(ctx context.Context, c challenge, auth *authn.AuthConfig, scope string) error {
	if auth.RegistryToken != "" {
		l.set("Bearer "+auth.RegistryToken, time.Time{})
		return nil
	}
	realm, err := url.Parse(c.params["realm"])
	if err == nil {
		err = mayFollow(l.door.base, realm)
	}
	if err != nil {
		return fmt.Errorf("logging in at %s: realm %q names no token server: %w", l.door.base.Host, c.params["realm"], err)
	}
	if scope == "" {
		scope = c.params["scope"]
	}
	if scope == "" {
		scope = l.scope
	}
	token, err := l.token(ctx, realm, c.params["service"], scope, auth)
	if err != nil {
		return fmt.Errorf("logging in at %s: token server %s: %w", l.door.base.Host, realm.Host, err)
	}
	l.set("Bearer "+token.value(), time.Now().Add(token.life()))
	if token.RefreshToken != "" {
		l.auth = authn.FromConfig(authn.AuthConfig{IdentityToken: token.RefreshToken})
	}
	return nil
}

// token is a token server's answer.
type token struct {
	Token        string `json:"token"`
	AccessToken  string `json:"access_token"` // OAuth's name for it
	RefreshToken string `json:"refresh_token"`
	ExpiresIn    any    `json:"expires_in"` // seconds; some write them as a string
}

func (t *token) value() string {
	if t.Token != "" {
		return t.Token
	}
	return t.AccessToken
}

func (t *token) life() time.Duration {
	if s, ok := t.ExpiresIn.(float64); ok && s > 0 {
		return time.Duration(min(s, 1<<31)) * time.Second
	}
	return tokenLife
}

// token asks a token server. An identity token is exchanged by POST; servers that do not
// know that are asked by GET like others.
func (l *login) token(ctx context.Context, realm *url.URL, service, scope string, auth *authn.AuthConfig) (*token, error) {
	if auth.IdentityToken != "" {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {auth.IdentityToken}, "client_id": {"atoll"}, "scope": {scope}}
		if service != "" {
			form.Set("service", service)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		t, err := l.askToken(req)
		var refused *transport.Error
		if !errors.As(err, &refused) || refused.StatusCode != http.StatusNotFound && refused.StatusCode != http.StatusMethodNotAllowed {
			return t, err
		}
	}
	u := *realm
	query := u.Query()
	query.Set("scope", scope)
	if service != "" {
		query.Set("service", service)
	}
	if auth.Username != "" {
		query.Set("account", auth.Username)
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	switch {
	case auth.Username != "":
		req.SetBasicAuth(auth.Username, auth.Password)
	case auth.Auth != "":
		req.Header.Set("Authorization", "Basic "+auth.Auth)
	}
	return l.askToken(req)
}

func (l *login) askToken(req *http.Request) (*token, error) {
	data, err := l.door.small(req, maxToken)
	if err != nil {
		return nil, err
	}
	var t token
	if json.Unmarshal(data, &t) != nil || t.value() == "" || strings.ContainsAny(t.value(), "\r\n") {
		return nil, errors.New("its answer holds no token") // what it holds is nobody's business
	}
	return &t, nil
}
