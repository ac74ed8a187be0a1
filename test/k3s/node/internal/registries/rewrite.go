package registries

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"slices"
	"time"
)

// containerd as released cannot rewrite repository names (k3s carries a patch for it), so here a small proxy on
// loopback does it.

// apiPath splits /v2/<repository>/<kind>/<reference>.
var apiPath = regexp.MustCompile(`^(.*/v2/)(.+)(/(?:manifests|blobs|tags|referrers)/.*)$`)

// ServeRewrites is the Rewriter that serves on a free loopback port until the process ends.
func ServeRewrites(endpoint string, m Mirror, t *TLS) (string, error) {
	proxy, err := newRewriteProxy(endpoint, m, t)
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("serving rewrites: %w", err)
	}
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }() // ends with the process; a broken proxy shows as failing pulls
	return "http://" + l.Addr().String() + "/v2", nil
}

func newRewriteProxy(endpoint string, m Mirror, t *TLS) (http.Handler, error) {
	base, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("parsing endpoint: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if transport.TLSClientConfig, err = t.config(); err != nil {
		return nil, err
	}
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = base.Scheme, base.Host, base.Host
			path := base.Path + r.In.URL.Path[len("/v2"):]
			if s := apiPath.FindStringSubmatch(path); s != nil {
				path = s[1] + m.repository(s[2]) + s[3]
			}
			r.Out.URL.Path, r.Out.URL.RawPath = path, ""
		},
	}, nil
}

// repository applies the first matching rewrite, in sorted order.
func (m Mirror) repository(name string) string {
	for _, expr := range slices.Sorted(maps.Keys(m.Rewrites)) {
		if re := regexp.MustCompile(expr); re.MatchString(name) {
			return re.ReplaceAllString(name, m.Rewrites[expr])
		}
	}
	return name
}

func (t *TLS) config() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	c := &tls.Config{InsecureSkipVerify: t.InsecureSkipVerify}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading a registry's CA: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		c.RootCAs.AppendCertsFromPEM(pem)
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading a registry's client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
