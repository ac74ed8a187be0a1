package images

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"atoll/test/regtest"
)

// runTest runs one test of this binary in a process of its own.
func runTest(t *testing.T, name string, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+name+"$")
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
}

func TestMayFollow(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		ok       bool
	}{
		{"https://reg.test", "https://storage.test/x", true},
		{"https://reg.test", "https://10.0.0.7/x", true}, // closed networks
		{"https://reg.test", "https://127.0.0.1/x", true},
		{"http://reg.test", "http://storage.test/x", true},
		{"http://reg.test", "https://storage.test/x", true},
		{"https://reg.test", "http://reg.test/x", false},
		{"https://reg.test", "https://169.254.169.254/latest", false},
		{"http://reg.test", "http://[fe80::1%25eth0]/x", false},
		{"http://reg.test", "http://[::ffff:169.254.169.254]/x", false},
		{"http://169.254.1.1:5000", "http://169.254.1.1:5001/x", true}, // it is its own
		{"https://reg.test", "ftp://reg.test/x", false},
		{"https://reg.test", "file:///etc/passwd", false},
		{"https://reg.test", "/x", false},
		{"https://reg.test", "https:///x", false},
	} {
		from, err := url.Parse(tc.from)
		if err != nil {
			t.Fatal(err)
		}
		to, err := url.Parse(tc.to)
		if err != nil {
			t.Fatal(err)
		}
		if err := mayFollow(from, to); (err == nil) != tc.ok {
			t.Errorf("%s to %s: %v", tc.from, tc.to, err)
		}
	}
}

// TestRedirectsAreBounded: ten are followed, no more, and what is secret stays at home.
func TestRedirectsAreBounded(t *testing.T) {
	var mu sync.Mutex
	seen := map[string][]string{} // Authorization by path
	var other string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.URL.Path] = append(seen[r.URL.Path], r.Header.Get("Authorization"))
		mu.Unlock()
		var n int
		switch {
		case r.URL.Path == "/away":
			http.Redirect(w, r, other+"/there?signature=s3cret", http.StatusTemporaryRedirect)
		case r.URL.Path == "/metadata":
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
		case r.URL.Path == "/there":
			panic(http.ErrAbortHandler)
		default:
			fmt.Sscanf(r.URL.Path, "/%d", &n)
			if n > 0 {
				http.Redirect(w, r, fmt.Sprintf("/%d", n-1), http.StatusFound)
			}
		}
	}))
	defer srv.Close()
	there := httptest.NewServer(srv.Config.Handler) // another port of the same machine
	defer there.Close()
	other = there.URL
	c, err := newClient(&Options{pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path string) error {
		req, err := http.NewRequestWithContext(context.Background(), method, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if method == http.MethodPost {
			req, _ = http.NewRequest(method, srv.URL+path, strings.NewReader("refresh_token=s3cret"))
		}
		req.Header.Set("Authorization", "Basic s3cret")
		_, err = getSmall(c.http, req, 100)
		return err
	}
	if err := ask("GET", "/10"); err != nil {
		t.Errorf("10 redirects: %v", err)
	}
	if err := ask("GET", "/1000"); err == nil || !strings.Contains(err.Error(), "stopped after 10 redirects") {
		t.Errorf("1000 redirects: got %v", err)
	}
	if err := ask("GET", "/metadata"); err == nil || !strings.Contains(err.Error(), "link-local") {
		t.Errorf("metadata: got %v", err)
	}
	if err := ask("GET", "/away"); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v, want an error without the signature", err)
	}
	if err := ask("POST", "/away"); err == nil || !strings.Contains(err.Error(), "redirect refused") {
		t.Errorf("body is sent on to another host: got %v", err)
	}
	for _, auth := range seen["/there"] {
		if auth != "" {
			t.Errorf("another host was shown %q", auth)
		}
	}
	if seen["/0"][0] == "" {
		t.Error("the same host was not shown the login")
	}
}

func TestIsBroken(t *testing.T) {
	for err, want := range map[error]bool{
		fmt.Errorf("read: %w", syscall.ECONNRESET): true,
		errors.New(`http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=ENHANCE_YOUR_CALM, debug=""`): true,
		errors.New("stream error: stream ID 5; REFUSED_STREAM; received from peer"):                                            true,
		context.Canceled:           false,
		errors.New("no such host"): false,
		stallError{time.Second}:    false,
	} {
		if isBroken(err) != want {
			t.Errorf("%v: got %v", err, !want)
		}
	}
}

// TestBrokenStream: a stream of HTTP/2 that the server ends is asked for again.
func TestBrokenStream(t *testing.T) {
	ours := newAuthority(t)
	cert, key := ours.pair(t, "client")
	l, host := tlsLab(t, ours)
	l.push(t, randomImage(t, "amd64", 1000, 1), "a/x:1")
	certs := t.TempDir()
	writeFiles(t, certs+"/"+host, map[string][]byte{"ca.crt": ours.pem(), "client.cert": cert, "client.key": key})
	handler := l.handler
	var mu sync.Mutex
	resets, protocol := 0, ""
	l.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		resets++
		protocol = r.Proto
		first := resets%2 == 1
		mu.Unlock()
		if first && strings.Contains(r.URL.Path, "a/x") {
			panic(http.ErrAbortHandler) // RST_STREAM
		}
		handler.ServeHTTP(w, r)
	})
	c, err := newClient(&Options{certs: []string{certs}, pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.resolveImages(context.Background(), []Wanted{{Reference: host + "/a/x:1"}}, "amd64"); err != nil {
		t.Error(err)
	}
	if protocol != "HTTP/2.0" {
		t.Errorf("spoke %s", protocol)
	}
	if limit := c.http.Transport.(*patience).gate(host).limit; limit >= firstLimit {
		t.Errorf("limit is %v after broken streams", limit)
	}
}

// TestFewLogins: all repositories of a registry ask once how to log in, all requests of a
// repository share a token, and what a HEAD is refused is not asked again.
func TestFewLogins(t *testing.T) {
	r := regtest.New(t)
	var refs []string
	for i := range 5 {
		name := fmt.Sprintf("lab/few:%d", i)
		r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(uint64(i), 3000)}}, name)
		refs = append(refs, "lab.test/"+name)
	}
	tiny(r, "lab/tiny:1")
	r.Login(&regtest.Auth{Realm: "http://" + r.Elsewhere + "/token"})
	mustLock(t, caseOptions(r), append(refs, "lab.test/lab/tiny:1")...)
	if n := r.Count(regtest.Ping); n != 1 {
		t.Errorf("%d pings", n)
	}
	if n := r.Count(regtest.Token); n != 2 {
		t.Errorf("%d tokens for two repositories", n)
	}
	for _, q := range r.Requests() {
		if q.Status == http.StatusUnauthorized && q.Kind != regtest.Ping {
			t.Errorf("%s was refused", q.Path)
		}
	}
}
