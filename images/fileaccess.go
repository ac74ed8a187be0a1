package images

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// fileAccess is a transport for one file of a host that is no registry: such hosts know
// no tokens, and "docker login" knows no such hosts.
type fileAccess struct {
	inner  http.RoundTripper
	asked  *url.URL                                         // the file's
	login  func(context.Context) (*authn.AuthConfig, error) // when one is wanted; nil if there is none
	advice string                                           // what the user can do about a refusal
}

// A deniedError is the refusal of a host that holds files.
type deniedError struct {
	status int
	advice string
}

func (e *deniedError) Error() string {
	return fmt.Sprintf("denies access (%d %s): %s", e.status, http.StatusText(e.status), e.advice)
}

// accessSource is a URL that is asked by a.
func accessSource(u string, a *fileAccess) source {
	s := source{host: u, url: u, http: func(context.Context) (*http.Client, error) {
		return &http.Client{CheckRedirect: checkRedirect, Transport: a}, nil
	}}
	if parsed, err := url.Parse(u); err == nil {
		a.asked, s.host = parsed, parsed.Host
	}
	return s
}

// loginSource is a URL, or what the mirror of its host has, asked with the login of docker
// or podman if the host wants one. instead is what to give to --source to do without it.
func (c *client) loginSource(u, instead string) source {
	s := c.plainSource(u)
	safe := isLoopback(s.host) || slices.Contains(c.plain, hostName(s.host))
	a := &fileAccess{
		inner:  c.http.Transport,
		advice: fmt.Sprintf("put \"username\" and \"password\" for %q under \"auths\" in docker's config.json, or take it from disk by --source %s", s.host, instead),
	}
	if parsed, err := url.Parse(s.url); err == nil && parsed.Scheme == "http" && !safe {
		a.advice += fmt.Sprintf("; --plain-http %s lets a login go there without TLS", s.host)
	} else {
		a.login = func(ctx context.Context) (*authn.AuthConfig, error) { return c.hostLogin(ctx, s.host) }
	}
	return accessSource(s.url, a)
}

// hostLogin gives what the keychain has for a host; nil if that is no user and password.
func (c *client) hostLogin(ctx context.Context, host string) (*authn.AuthConfig, error) {
	reg, err := name.NewRegistry(host)
	if err != nil {
		return nil, nil // nobody can have a login there
	}
	found, err := authn.Resolve(ctx, c.Keychain, reg)
	if err != nil {
		return nil, fmt.Errorf("getting credentials for %s: %w", host, err)
	}
	auth, err := authn.Authorization(ctx, found)
	if err != nil {
		return nil, fmt.Errorf("getting credentials for %s: %w", host, err)
	}
	if auth.Username == "" && auth.Auth == "" {
		return nil, nil
	}
	return auth, nil
}

func (a *fileAccess) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := a.inner.RoundTrip(req)
	if err != nil || a.asked == nil || req.URL.Host != a.asked.Host || req.URL.Scheme != a.asked.Scheme {
		return resp, err // redirected: a login is none of its business
	}
	if resp.StatusCode == http.StatusUnauthorized && a.login != nil && offersBasic(resp.Header) {
		auth, err := a.login(req.Context())
		if err != nil {
			resp.Body.Close()
			return nil, err
		}
		if auth != nil {
			drain(resp)
			if resp, err = a.inner.RoundTrip(withBasic(req, auth)); err != nil {
				return nil, err
			}
		}
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
	case http.StatusForbidden:
		if req.URL.String() != a.asked.String() { // a signature that is no longer good
			return resp, nil
		}
	default:
		return resp, nil
	}
	drain(resp)
	return nil, &deniedError{resp.StatusCode, a.advice}
}

func offersBasic(h http.Header) bool {
	return slices.ContainsFunc(challenges(h), func(c challenge) bool { return c.scheme == "basic" })
}

func withBasic(req *http.Request, auth *authn.AuthConfig) *http.Request {
	req = req.Clone(req.Context())
	word := auth.Auth
	if auth.Username != "" {
		word = base64.StdEncoding.EncodeToString([]byte(auth.Username + ":" + auth.Password))
	}
	req.Header.Set("Authorization", "Basic "+word)
	return req
}
