package images

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll/bundle"
	"atoll/test/regtest"
)

// connection is the key of a request's connection, in its context.
type connection struct{}

// http2Server serves h by HTTP/2, on connections that wrap may change. The options are
// made to trust it.
func http2Server(t *testing.T, o *Options, h http.HandlerFunc, wrap func(net.Listener) net.Listener) (url string) {
	t.Helper()
	ours := newAuthority(t)
	cert, key := ours.pair(t, "server")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Listener = wrap(srv.Listener)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connection{}, c)
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	host := "localhost" + srv.URL[strings.LastIndexByte(srv.URL, ':'):]
	certs := t.TempDir()
	writeFiles(t, certs+"/"+host, map[string][]byte{"ca.crt": ours.pem()})
	o.certs = []string{certs}
	return "https://" + host
}

// fetchAt fetches data from a URL.
func fetchAt(t *testing.T, c *client, s *bundle.Store, url string, data []byte) error {
	return c.fetch(t.Context(), s, &download{name: "file x", digest: bundle.DigestOf(data), size: int64(len(data)), sources: []source{c.plainSource(url)}}, &transfer{})
}

// TestGoAway: an HTTP/2 server says that it has had enough, and closes the connection in
// the middle of all that comes by it. That is gone on with, and halves the limit once.
func TestGoAway(t *testing.T) {
	data := regtest.Bytes(1, 1<<20)
	var mu sync.Mutex
	var asked []string
	var all sync.WaitGroup // of the requests that share the connection
	all.Add(firstLimit)
	var log logged
	o := &Options{pause: time.Millisecond, Log: log.logger()}
	url := http2Server(t, o, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path+" "+r.Header.Get("Range"))
		mu.Unlock()
		if r.URL.Path == "/first" || r.Header.Get("Range") != "" {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Header().Set("Connection", "close") // net/http's way to send GOAWAY
		for part := range slices.Chunk(data[:len(data)/2], 8<<10) {
			w.Write(part)
			w.(http.Flusher).Flush() // at one of these it was sent
		}
		all.Done()
		all.Wait()
		r.Context().Value(connection{}).(*tls.Conn).NetConn().(*net.TCPConn).CloseWrite()
		<-r.Context().Done()
	}, func(l net.Listener) net.Listener { return l })
	c, err := newClient(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := fetchAt(t, c, newStore(t), url+"/first", data); err != nil { // opens the connection
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range firstLimit {
		s := newStore(t)
		wg.Go(func() {
			if err := fetchAt(t, c, s, fmt.Sprintf("%s/%d", url, i), data); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if !strings.Contains(log.String(), "GOAWAY") {
		t.Errorf("nothing says that the server went away:\n%s", &log)
	}
	if g := c.http.Transport.(*patience).gate(strings.TrimPrefix(url, "https://")); g.cuts != 1 {
		t.Errorf("the limit was halved %d times, want once for what broke together", g.cuts)
	}
	mu.Lock()
	defer mu.Unlock()
	for i := range firstLimit {
		if want := fmt.Sprintf("/%d bytes=%d-%d", i, len(data)/2, len(data)-1); !slices.Contains(asked, want) {
			t.Errorf("asked for %q, want %s", asked, want)
		}
	}
	if len(asked) != 1+2*firstLimit {
		t.Errorf("asked for %q, want each twice", asked)
	}
}

// mute is a listener whose first connection is silent after so many bytes, and stays
// open: something between us and the server has forgotten it.
type mute struct {
	net.Listener
	after int
	once  sync.Once
}

func (m *mute) Accept() (net.Conn, error) {
	c, err := m.Listener.Accept()
	if err == nil {
		m.once.Do(func() { c = &muteConn{Conn: c, left: m.after, closed: make(chan struct{})} })
	}
	return c, err
}

type muteConn struct {
	net.Conn
	left   int
	closed chan struct{}
	once   sync.Once
}

func (c *muteConn) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		<-c.closed
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c *muteConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestDeadConnection: HTTP/2 has one connection for all. When it is dead, a transfer is
// not opened again on it.
func TestDeadConnection(t *testing.T) {
	data := regtest.Bytes(1, 1<<20)
	o := &Options{pause: time.Millisecond, idle: time.Second}
	url := http2Server(t, o, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}, func(l net.Listener) net.Listener { return &mute{Listener: l, after: len(data) / 2} })
	c, err := newClient(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := fetchAt(t, c, newStore(t), url, data); err != nil {
		t.Error(err)
	}
}
