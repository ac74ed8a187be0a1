package images

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxRedirects is how often one request may be sent on.
const maxRedirects = 10

// hosts is a transport that asks each host by the certificates that are kept for it.
type hosts struct {
	shared *http.Transport // for those without
	certs  []string        // see certsDirs
	idle   time.Duration   // a body that brings too little for so long is cut
	pace   *pace           // of all bodies; nil for no limit
	secure []string        // hosts that a mirror's URL says to speak TLS

	mu  sync.Mutex
	own map[string]*http.Transport
}

func newHosts(o *Options, mirrors map[string]*url.URL) (*hosts, error) {
	if err := checkProxies(); err != nil {
		return nil, err
	}
	h := &hosts{
		certs: o.certs, own: map[string]*http.Transport{}, idle: o.idle,
		shared: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			OnProxyConnectResponse: connected,
			DialContext:            (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    o.Jobs,
			IdleConnTimeout:        90 * time.Second,
			TLSHandshakeTimeout:    15 * time.Second,
			ResponseHeaderTimeout:  o.idle,
			// All requests to a host share one connection of HTTP/2. One that is dead must be
			// known as such before a transfer is opened again, or it is opened there.
			HTTP2: &http.HTTP2Config{SendPingTimeout: o.idle / 2, PingTimeout: o.idle / 4},
		},
	}
	if o.LimitRate > 0 {
		h.pace = &pace{rate: o.LimitRate}
	}
	for _, u := range mirrors {
		if u.Scheme == "https" {
			h.secure = append(h.secure, u.Host)
		}
	}
	return h, nil
}

// transport gives the host's.
func (h *hosts) transport(host string) (*http.Transport, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.own[host]; t != nil {
		return t, nil
	}
	t := h.shared
	config, err := hostTrust(h.certs, host)
	if err != nil {
		return nil, err
	}
	if config != nil {
		t = h.shared.Clone()
		t.TLSClientConfig = config
	}
	h.own[host] = t
	return t, nil
}

// hostError is the failure of a host, and what is known of how it was asked.
type hostError struct {
	host   string
	certs  string // the folder that counts for its certificates, there or not; empty if unknown
	mirror bool   // a mirror's URL says that it speaks TLS
	error
}

func (e *hostError) Unwrap() error   { return e.error }
func (e *hostError) Timeout() bool   { return isTimeout(e.error) }
func (e *hostError) Temporary() bool { return false }

func (h *hosts) RoundTrip(req *http.Request) (*http.Response, error) {
	host := req.URL.Host
	resp, err := h.roundTrip(req)
	if err != nil {
		return nil, &hostError{host, certsFolder(h.certs, host), slices.Contains(h.secure, host), err}
	}
	return resp, nil
}

func (h *hosts) roundTrip(req *http.Request) (*http.Response, error) {
	t, err := h.transport(req.URL.Host)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := t.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	if resp.StatusCode == http.StatusProxyAuthRequired { // the answer of a proxy on plain http
		if proxy, err := t.Proxy(req); err == nil && proxy != nil {
			resp.Body.Close()
			cancel(nil)
			return nil, &proxyError{proxy.Host, req.URL.Scheme, resp.StatusCode}
		}
	}
	resp.Body = &wireBody{ReadCloser: resp.Body, host: req.URL.Host, ctx: ctx, cancel: cancel, idle: h.idle, pace: h.pace}
	return resp, nil
}

// checkRedirect bounds redirects, and keeps a registry's credentials from the storage it
// redirects to, which may be another port of the same machine.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if err := mayRedirect(req, via); err != nil {
		return redirectError{err}
	}
	return nil
}

// redirectError is about who redirects, not about where to.
type redirectError struct{ error }

func mayRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	if err := mayFollow(via[len(via)-1].URL, req.URL); err != nil {
		return fmt.Errorf("redirect refused: %w", err)
	}
	if req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
		if req.Body != nil {
			return fmt.Errorf("redirect refused: %s sends what was meant for it to %s", via[0].URL.Host, req.URL.Host)
		}
		req.Header.Del("Authorization")
	}
	return nil
}

// mayFollow says whether one host may send us to another place: to its storage or its
// token server. Private addresses may be either. Link-local ones are no place for them,
// but for the services of a cloud that give secrets to whoever asks.
func mayFollow(from, to *url.URL) error {
	switch {
	case to.Scheme != "https" && to.Scheme != "http" || to.Host == "":
		return fmt.Errorf("%s sends to what is no http or https URL", from.Host)
	case from.Scheme == "https" && to.Scheme == "http":
		return fmt.Errorf("%s sends from https to plain http, at %s", from.Host, to.Host)
	}
	if ip, err := netip.ParseAddr(to.Hostname()); err == nil && ip.Unmap().IsLinkLocalUnicast() && to.Hostname() != from.Hostname() {
		return fmt.Errorf("%s sends to the link-local address %s", from.Host, to.Host)
	}
	return nil
}

// isLoopback tells the names and addresses of this machine.
func isLoopback(host string) bool {
	name := (&url.URL{Host: host}).Hostname()
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback()
}

// connectionAdvice is what an error of a connection means, and what the user can do;
// empty if that is unknown. Its role is what it is to the registry, if it is another.
func connectionAdvice(err error, host, role string) string {
	at := &hostError{}
	errors.As(err, &at)
	certs := cmp.Or(at.certs, "/etc/docker/certs.d/"+host)
	var proxy *proxyError
	var unknown x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.As(err, &proxy):
		return proxy.advice()
	case errors.As(err, &unknown):
		return fmt.Sprintf("has a certificate of an unknown authority: put that authority's into %s/ca.crt", certs)
	// A TLS alert, which HTTP/2 does not always hand on.
	case errors.As(err, &op) && op.Op == "remote error", strings.Contains(err.Error(), "http2: client conn could not be established"):
		return fmt.Sprintf("refuses the TLS connection: if it wants one, a client certificate goes into %s/ as client.cert and client.key", certs)
	case errors.As(err, &record) && role != "":
		return "does not speak TLS: the registry must be set to send to its http:// URL, or it to speak TLS"
	case errors.As(err, &record) && at.mirror:
		return "does not speak TLS: if that is meant, write http:// in --mirror"
	case errors.As(err, &record):
		return fmt.Sprintf("does not speak TLS: if that is meant, say so with --plain-http %s", host)
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "cannot be reached, for the proxy cannot: check HTTPS_PROXY and HTTP_PROXY, and NO_PROXY for hosts that need none"
	case isUnreachable(err) && role != "":
		return "cannot be reached: check the network and that name, or send the registry's traffic elsewhere with --mirror"
	case isUnreachable(err):
		return "cannot be reached: check the network, or send its traffic elsewhere with --mirror"
	}
	return ""
}
