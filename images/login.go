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

	"atoll/bundle/bounds"
)

// Logging in is not left to go-containerregistry. Its transport refuses a token server at
// a private address, which closed networks have; it knows one challenge a line; it pings
// the registry for every repository anew; and it gets a token as often as requests meet
// that hold an old one.

const (
	// tokenLife is how long a token is good whose server does not say, by the protocol.
	tokenLife = time.Minute
	// maxLogins is with how many logins a request is sent.
	maxLogins = 5
)

// loginError says that a registry offers no way to log in that is known here.
type loginError struct {
	Host    string
	Offered []string // schemes
}

func (e *loginError) Error() string {
	return fmt.Sprintf("%s wants a login by %s; known are Basic and Bearer: send its traffic by --mirror to a registry that has one of them", e.Host, strings.Join(e.Offered, " or "))
}

// showsOwn marks the context of requests that are sent with the user's credentials, or
// with what was given for them.
type showsOwn struct{}

// tokenError is the failure of a registry's token server.
type tokenError struct {
	registry, server string // hosts
	err              error
}

func (e *tokenError) Error() string {
	return fmt.Sprintf("logging in at %s: token server %s: %v", e.registry, e.server, e.err)
}

func (e *tokenError) Unwrap() error { return e.err }

// login is a transport that logs in for one repository. A login that is refused is renewed
// once, and again if it ran out while the request waited: tokens live shorter than layers
// and waits take.
type login struct {
	inner http.RoundTripper
	door  *door
	auth  authn.Authenticator
	scope string

	mu      sync.Mutex
	started bool
	pass
}

// pass is what is shown to get in.
type pass struct {
	header  string    // Authorization; empty for none
	expires time.Time // zero for never
	number  int       // of the login
	own     bool      // it is, or was got by, the user's credentials
	proof   *proof    // of credentials that are shown as they are
}

func (l *login) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != l.door.base.Host || req.URL.Scheme != l.door.base.Scheme {
		return l.inner.RoundTrip(req) // redirected: the login is none of its business
	}
	now, err := l.current(req.Context())
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		resp, err := l.send(req, now)
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			return resp, err
		}
		// The refusal must be over before anything is waited for: the token server may be
		// the same host, and it may stand no two requests at once.
		said, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // that it was refused is what counts
		resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(said))
		offers := challenges(resp.Header)
		if len(offers) == 0 || try == maxLogins || try > 1 && !l.outdated(now) {
			return resp, nil
		}
		again, err := l.renew(req.Context(), now.number, offers)
		if err != nil {
			return nil, err
		}
		if again.header == "" || again.header == now.header { // nothing better to say
			return resp, nil
		}
		now = again
	}
}

// outdated tells whether a login has run out, or been replaced, since it was taken: the
// request may have waited with it.
func (l *login) outdated(p pass) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return p.number != l.number || !p.expires.IsZero() && time.Now().After(p.expires)
}

func (l *login) send(req *http.Request, p pass) (resp *http.Response, err error) {
	ctx := req.Context()
	if p.own {
		ctx = context.WithValue(ctx, showsOwn{}, true)
	}
	req = req.Clone(ctx)
	if p.header != "" {
		req.Header.Set("Authorization", p.header)
	}
	err = p.proof.show(func() error {
		if resp, err = l.inner.RoundTrip(req); err != nil || p.proof == nil {
			return err
		}
		return verdictOf(resp)
	})
	if resp != nil {
		return resp, nil
	}
	return nil, err
}

// verdictOf is what an answer says of the credentials that were shown: none is that they
// are good. The body of the answer stays.
func verdictOf(resp *http.Response) error {
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		said, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // that it was refused is what counts
		resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(said))
		err := transport.CheckError(resp)
		resp.Body = io.NopCloser(bytes.NewReader(said))
		return err
	case resp.StatusCode >= http.StatusInternalServerError:
		return errors.New(resp.Status)
	}
	return nil
}

// current gives the login, made anew if it is past its time.
func (l *login) current(ctx context.Context) (pass, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.started && (l.expires.IsZero() || time.Now().Before(l.expires)) {
		return l.pass, nil
	}
	offers, err := l.door.challenges(ctx)
	if err != nil {
		return pass{}, err
	}
	var unknown *loginError
	if err := l.make(ctx, offers, l.scope); err != nil && !errors.As(err, &unknown) { // that may do without
		return pass{}, err
	}
	l.started = true
	return l.pass, nil
}

// renew makes a login by the challenges of a refusal, unless another request has since.
func (l *login) renew(ctx context.Context, number int, offers []challenge) (pass, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.number != number {
		return l.pass, nil
	}
	err := l.make(ctx, offers, "")
	return l.pass, err
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
		l.show("Basic "+base64.StdEncoding.EncodeToString([]byte(auth.Username+":"+auth.Password)), auth)
	case auth.Auth != "":
		l.show("Basic "+auth.Auth, auth)
	}
	return nil
}

// show sets a header that is a credential itself.
func (l *login) show(header string, auth *authn.AuthConfig) {
	l.pass = pass{header: header, number: l.number + 1, own: true, proof: l.door.proof(auth)}
}

// bearer gets a token.
func (l *login) bearer(ctx context.Context, c challenge, auth *authn.AuthConfig, scope string) error {
	if auth.RegistryToken != "" {
		l.show("Bearer "+auth.RegistryToken, auth)
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
	p := l.door.proof(auth)
	if p != nil {
		ctx = context.WithValue(ctx, showsOwn{}, true)
	}
	var token *token
	err = p.show(func() (err error) {
		token, err = l.token(ctx, realm, c.params["service"], scope, auth)
		return err
	})
	if err != nil {
		return &tokenError{l.door.base.Host, realm.Host, err}
	}
	l.pass = pass{header: "Bearer " + token.value(), expires: time.Now().Add(token.life()), number: l.number + 1, own: p != nil}
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
	data, err := l.door.small(req, bounds.Token)
	if err != nil {
		return nil, err
	}
	var t token
	if json.Unmarshal(data, &t) != nil || t.value() == "" || strings.ContainsAny(t.value(), "\r\n") {
		return nil, errors.New("its answer holds no token") // what it holds is nobody's business
	}
	return &t, nil
}
