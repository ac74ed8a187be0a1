package images

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	der, key := a.sign(t, "authority")
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a.key, a.cert = key, cert
	return a
}

// sign makes a certificate, the authority's own at first.
func (a *authority) sign(t *testing.T, name string) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
	}
	signer, with := a.cert, a.key
	if signer == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		signer, with = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, signer, &key.PublicKey, with)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

func (a *authority) pair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	der, k := a.sign(t, name)
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// tlsLab is a lab that speaks TLS, as localhost:PORT, and wants a client certificate.
func tlsLab(t *testing.T, a *authority) (l *lab, host string) {
	t.Helper()
	l = newLab(t)
	cert, key := a.pair(t, "server")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(a.cert)
	srv := httptest.NewUnstartedServer(l)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return l, "localhost" + srv.URL[strings.LastIndexByte(srv.URL, ':'):]
}

func writeFiles(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCertificatesOfHost: docker's and podman's folders say whom to trust and who we are,
// for one host each.
func TestCertificatesOfHost(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	l, host := tlsLab(t, ours)
	l.push(t, randomImage(t, "amd64", 1000, 1), "a/x:1")
	cert, key := ours.pair(t, "client")
	for name, tc := range map[string]struct {
		files map[string][]byte
		says  string // empty if it works
	}{
		"all":              {map[string][]byte{"ca.crt": ours.pem(), "client.cert": cert, "client.key": key, "README": nil}, ""},
		"two authorities":  {map[string][]byte{"a.crt": other.pem(), "b.crt": ours.pem(), "client.cert": cert, "client.key": key}, ""},
		"no authority":     {map[string][]byte{"client.cert": cert, "client.key": key}, "/" + host + "/ca.crt: "},
		"another":          {map[string][]byte{"ca.crt": other.pem()}, "unknown authority"},
		"no client":        {map[string][]byte{"ca.crt": ours.pem()}, "/" + host + "/ as client.cert and client.key"},
		"no key":           {map[string][]byte{"ca.crt": ours.pem(), "client.cert": cert}, "client.key (or is it an authority's"},
		"key alone":        {map[string][]byte{"ca.crt": ours.pem(), "client.key": key}, "client.key has no client certificate: put it into "},
		"empty":            {map[string][]byte{"ca.crt": nil}, "ca.crt holds no certificate"},
		"key of something": {map[string][]byte{"ca.crt": ours.pem(), "client.cert": cert, "client.key": []byte("key")}, "client.cert"},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := t.TempDir(), t.TempDir()
			writeFiles(t, filepath.Join(first, host), tc.files)
			writeFiles(t, filepath.Join(second, host), nil) // the first counts
			writeFiles(t, filepath.Join(second, "other.test"), map[string][]byte{"ca.crt": nil})
			c, err := newClient(&Options{certs: []string{first, second}, pause: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.resolveImages(context.Background(), []Wanted{{Reference: host + "/a/x:1"}}, "amd64")
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
		})
	}
}

// TestSystemTrustChild is what [TestSystemTrust] runs.
func TestSystemTrustChild(t *testing.T) {
	host := os.Getenv("ATOLL_TEST_TLS_HOST")
	if host == "" {
		t.Skip("is run by TestSystemTrust")
	}
	c, err := newClient(&Options{certs: []string{os.Getenv("ATOLL_TEST_CERTS")}, pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.resolveImages(context.Background(), []Wanted{{Reference: host + "/a/x:1"}}, "amd64"); err != nil {
		t.Error(err)
	}
}

// TestSystemTrust: a host's authorities are beside the machine's, which are read once in a
// process, so that it takes another.
func TestSystemTrust(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	l, host := tlsLab(t, ours)
	l.push(t, randomImage(t, "amd64", 1000, 1), "a/x:1")
	cert, key := ours.pair(t, "client")
	dir := t.TempDir()
	writeFiles(t, dir, map[string][]byte{"system.pem": ours.pem()})
	writeFiles(t, filepath.Join(dir, host), map[string][]byte{"ca.crt": other.pem(), "client.cert": cert, "client.key": key})
	runTest(t, "TestSystemTrustChild", "ATOLL_TEST_TLS_HOST="+host, "ATOLL_TEST_CERTS="+dir, "SSL_CERT_FILE="+filepath.Join(dir, "system.pem"))
}

func TestHostTrustStaysInItsFolder(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string][]byte{"ca.crt": nil})
	for _, host := range []string{"", ".", "..", "../x", "a/../..", `a\b`} {
		if config, err := hostTrust([]string{filepath.Join(dir, "certs.d"), dir}, host); config != nil || err != nil {
			t.Errorf("%q: got %v, %v", host, config, err)
		}
	}
}

// TestTrustOfOtherNames: a host's folder may be called as users call the host.
func TestTrustOfOtherNames(t *testing.T) {
	ours := newAuthority(t)
	for host, folder := range map[string]string{"index.docker.io": "docker.io", "docker.io": "docker.io", "REG:5000": "reg:5000"} {
		for _, name := range []string{host, folder} {
			dir := t.TempDir()
			writeFiles(t, filepath.Join(dir, name), map[string][]byte{"ca.crt": ours.pem()})
			if config, err := hostTrust([]string{t.TempDir(), dir}, host); err != nil || config == nil {
				t.Errorf("folder %s, host %s: got %v, %v", name, host, config, err)
			}
			if config, err := hostTrust([]string{dir}, "quay.io"); err != nil || config != nil {
				t.Errorf("folder %s counts for quay.io: %v, %v", name, config, err)
			}
		}
	}
}

// TestPlainHTTP: http only where it is said, or on this machine.
func TestPlainHTTP(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, filepath.Join(dir, "localhost:5001"), nil)
	c, err := newClient(&Options{PlainHTTP: []string{"Plain.test", "10.0.0.7:5000", "c.mirror"}, certs: []string{dir},
		Mirrors: map[string]string{"a.test": "http://a.mirror", "b.test": "https://10.0.0.1:5000/p+q", "c.test": "https://c.mirror"}})
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"quay.io/a/x:1": "https://quay.io/v2/a/x/", "docker.io/library/x:1": "https://index.docker.io/v2/library/x/",
		"plain.test/x:1": "http://plain.test/v2/x/", "plain.test:5000/x:1": "https://plain.test:5000/v2/x/", "10.0.0.7:5000/x:1": "http://10.0.0.7:5000/v2/x/",
		"10.0.0.8/x:1": "https://10.0.0.8/v2/x/", "localhost/x:1": "http://localhost/v2/x/", "localhost:5000/x:1": "http://localhost:5000/v2/x/",
		"localhost:5001/x:1": "https://localhost:5001/v2/x/", "127.0.0.2:1/x:1": "http://127.0.0.2:1/v2/x/", "[::1]:5000/x:1": "http://[::1]:5000/v2/x/",
		"[2001:db8::7]:5000/x:1": "https://[2001:db8::7]:5000/v2/x/",
		"a.test/x:1":             "http://a.mirror/v2/x/", "b.test/x:1": "https://10.0.0.1:5000/v2/p%2Bq/x/",
		"c.test/x:1": "http://c.mirror/v2/x/",
	} {
		r, err := c.repository(ref)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
		} else if r.base != want {
			t.Errorf("%s is at %s, want %s", ref, r.base, want)
		}
	}
}

// TestPlainHTTPHint: a registry that turns out to speak plain http is told how to ask.
func TestPlainHTTPHint(t *testing.T) {
	l := newLab(t)
	host := strings.TrimPrefix(l.url, "http://")
	o := l.options()
	o.Mirrors["plain.test"] = "https://" + host
	c, err := newClient(o)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.resolveImages(context.Background(), []Wanted{{Reference: "plain.test/a:1"}}, "amd64")
	if err == nil || !strings.Contains(err.Error(), "write http:// in --mirror") {
		t.Errorf("got %v, want what to write", err)
	}
}

// TestProxyChild is what [TestProxy] runs.
func TestProxyChild(t *testing.T) {
	if os.Getenv("ATOLL_TEST_PROXY") == "" {
		t.Skip("is run by TestProxy")
	}
	c, err := newClient(&Options{PlainHTTP: []string{"behind.test", os.Getenv("ATOLL_TEST_HOST")}, pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"behind.test", os.Getenv("ATOLL_TEST_HOST")} {
		if _, err := c.resolveImages(context.Background(), []Wanted{{Reference: host + "/a/x:1"}}, "amd64"); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.resolveImages(context.Background(), []Wanted{{Reference: "secure.test/a/x:1"}}, "amd64"); err == nil || !strings.Contains(err.Error(), "check HTTPS_PROXY") {
		t.Errorf("proxy of https is not there: got %v, want a hint", err)
	}
}

// TestProxy: a registry that only a proxy reaches. The variables are read once in a
// process, so that it takes another.
func TestProxy(t *testing.T) {
	l := newLab(t)
	img := randomImage(t, "amd64", 1000, 1)
	l.push(t, img, "a/x:1")
	asked := map[string]bool{}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		asked[r.URL.Host] = true
		l.mu.Unlock()
		l.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	host := strings.TrimPrefix(l.url, "http://")
	runTest(t, "TestProxyChild", "ATOLL_TEST_PROXY=1", "ATOLL_TEST_HOST="+host,
		"HTTP_PROXY="+proxy.URL, "HTTPS_PROXY=http://127.0.0.1:1", "NO_PROXY=other.test")
	if !asked["behind.test"] || asked[host] {
		t.Errorf("proxy was asked for %v, want behind.test alone", asked)
	}
}
