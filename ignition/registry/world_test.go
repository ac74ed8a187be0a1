package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const rootPassword = "roots-password"

// fakeCluster knows loopback addresses as pods: 127.0.0.N is in namespace c, 127.0.1.N in a, 127.0.2.N
// in b, 127.0.3.N on the host's network. Tokens are "token-NAMESPACE".
type fakeCluster struct{}

func (fakeCluster) Pod(_ context.Context, addr netip.Addr) (Pod, error) {
	switch addr.As4()[2] {
	case 0:
		return Pod{"c", "builder"}, nil
	case 1:
		return Pod{"a", "builder"}, nil
	case 2:
		return Pod{"b", "builder"}, nil
	case 3:
		return Pod{}, ErrHostNetwork
	case 4:
		return Pod{}, errors.New("the API server is away")
	}
	return Pod{}, ErrUnknown
}

func (fakeCluster) ServiceAccount(_ context.Context, token string) (ServiceAccount, error) {
	if ns, ok := strings.CutPrefix(token, "token-"); ok {
		return ServiceAccount{ns, "default"}, nil
	}
	return ServiceAccount{}, ErrUnknown
}

// world is a registry that serves on loopback, with a bundle of some images.
type world struct {
	*Registry
	t    *testing.T
	dir  string
	host string
	log  syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	opts := Options{Dir: w.dir, Quota: 1 << 30, Cluster: fakeCluster{}, RootPassword: rootPassword, Log: slog.New(slog.NewTextHandler(&w.log, nil))}
	if change != nil {
		change(&opts)
	}
	w.dir = opts.Dir
	r, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	w.Registry = r
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.host = ln.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// from are options of a client at an address.
func from(addr string) []remote.Option {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
	return []remote.Option{remote.WithTransport(transport), remote.WithRetryBackoff(remote.Backoff{Steps: 1})}
}

func with(addr, password string) []remote.Option {
	return append(from(addr), remote.WithAuth(&authn.Basic{Username: "anybody", Password: password}))
}

const (
	podA     = "127.0.1.7"
	podB     = "127.0.2.7"
	hostPod  = "127.0.3.7"
	noAPI    = "127.0.4.7"
	stranger = "127.0.9.9"
)

func (w *world) ref(s string) name.Reference {
	w.t.Helper()
	ref, err := name.ParseReference(w.host+"/"+s, name.Insecure)
	if err != nil {
		w.t.Fatal(err)
	}
	return ref
}

func image(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(3000, 3)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// refused fails unless err is an answer with the status and code, whose message has all of some texts.
func refused(t *testing.T, err error, status int, code string, texts ...string) {
	t.Helper()
	var e *transport.Error
	if !errors.As(err, &e) || e.StatusCode != status || len(e.Errors) == 0 || string(e.Errors[0].Code) != code {
		t.Errorf("got %v, want %d %s", err, status, code)
		return
	}
	for _, text := range texts {
		if !strings.Contains(e.Errors[0].Message, text) {
			t.Errorf("message %q lacks %q", e.Errors[0].Message, text)
		}
	}
}

// do sends a request as it is, without any client's help.
func (w *world) do(addr, method, path, body string, header http.Header) (*http.Response, string) {
	w.t.Helper()
	req, err := http.NewRequest(method, "http://"+w.host, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	raw, query, _ := strings.Cut(path, "?")
	unescaped, err := url.PathUnescape(raw)
	if err != nil {
		w.t.Fatal(err)
	}
	req.URL.Path, req.URL.RawPath, req.URL.RawQuery = unescaped, raw, query
	for k, v := range header {
		req.Header[k] = v
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}
	resp, err := (&http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(data)
}

// The bundle's registry is the one of firstboot on a node; here another, whose images have the host
// in their names.
func bundleServer(t *testing.T, names ...string) string {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	outer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "" || req.Header.Get("X-Forwarded-For") != "" {
			t.Errorf("the bundle's registry is told %v", req.Header)
		}
		if ns := req.URL.Query().Get("ns"); ns != "" {
			req.URL.Path = "/v2/" + strings.ReplaceAll(ns, ":", "_") + strings.TrimPrefix(req.URL.Path, "/v2")
		}
		inner.ServeHTTP(w, req)
	}))
	t.Cleanup(outer.Close)
	for _, n := range names {
		ref, err := name.ParseReference(strings.TrimPrefix(outer.URL, "http://")+"/"+n, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, image(t)); err != nil {
			t.Fatal(err)
		}
	}
	return outer.URL
}

// must is for what cannot fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func slogTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// patch sends bytes to an upload, and returns the status.
func (w *world) patch(addr, location string, body io.Reader) string {
	req, err := http.NewRequest(http.MethodPatch, "http://"+w.host+location, body)
	if err != nil {
		return err.Error()
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}
	resp, err := (&http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	resp.Body.Close()
	return resp.Status
}
