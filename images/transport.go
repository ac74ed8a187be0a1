package images

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
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
	pace   *pace           // of all bodies; nil for no limit

	mu  sync.Mutex
	own map[string]*http.Transport
}

func newHosts(o *Options) *hosts {
	h := &hosts{
		certs: o.certs, own: map[string]*http.Transport{},
		shared: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   o.Jobs,
			IdleConnTimeout:       90 * time.Second,
			TLSHandshakeTimeout:   15 * time.Second,
			ResponseHeaderTimeout: o.idle,
		},
	}
	if o.LimitRate > 0 {
		h.pace = &pace{rate: o.LimitRate}
	}
	return h
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

func (h *hosts) RoundTrip(req *http.Request) (*http.Response, error) {
	t, err := h.transport(req.URL.Host)
	if err != nil {
		return nil, err
	}
	resp, err := t.RoundTrip(req)
	if err == nil && h.pace != nil {
		resp.Body = &pacedBody{ReadCloser: resp.Body, ctx: req.Context(), pace: h.pace}
	}
	return resp, err
}

// pacedBody is a body that is read no faster than its pace.
type pacedBody struct {
	io.ReadCloser
	ctx  context.Context
	pace *pace
}

func (b *pacedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.pace.piece())])
	if n == 0 {
		return n, err
	}
	if wait := b.pace.take(time.Now(), n); wait > 0 {
		if err := sleep(b.ctx, wait); err != nil {
			return n, err
		}
	}
	return n, err
}

// checkRedirect bounds redirects, and keeps a registry's credentials from the storage it
// redirects to, which may be another port of the same machine.
func checkRedirect(req *http.Request, via []*http.Request) error {
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
// empty if that is unknown.
func connectionAdvice(err error, host string) string {
	var unknown x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &unknown):
		return fmt.Sprintf("has a certificate of an unknown authority: put that authority's into /etc/docker/certs.d/%s/ca.crt", host)
	// A TLS alert, which HTTP/2 does not always hand on.
	case errors.As(err, &op) && op.Op == "remote error", strings.Contains(err.Error(), "http2: client conn could not be established"):
		return fmt.Sprintf("refuses the TLS connection: if it wants one, a client certificate goes into /etc/docker/certs.d/%s/ as client.cert and client.key", host)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Sprintf("does not speak TLS: if that is meant, say so with --plain-http %s", host)
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "cannot be reached, for the proxy cannot: check HTTPS_PROXY and HTTP_PROXY, and NO_PROXY for hosts that need none"
	case errors.As(err, &dns), errors.As(err, &op) && op.Op == "dial":
		return "cannot be reached: check the network, or send its traffic elsewhere with --mirror"
	}
	return ""
}
