// Package regtest is a registry for tests, on loopback and in memory, that misbehaves
// exactly as told. Without a [Fault] it is a good one: it takes ranges, may want
// tokens (see [Auth]) and may send whoever wants a blob to a storage elsewhere (see
// [Presign]). It writes down every request and how many bytes it sent for it.
//
// It gives no opinion: what is right is for the tests to say.
package regtest

import (
	"bytes"
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

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Registry is a running registry with its storage and token server. Its methods may
// be called at any time.
type Registry struct {
	// Host is the registry's host and port. Beside is another port of the same machine,
	// Elsewhere another machine; both have a private address and answer as Host does.
	Host, Beside, Elsewhere string

	closing chan struct{}
	faults  sync.Mutex // held while a fault decides

	mu       sync.Mutex
	blobs    map[v1.Hash][]byte
	types    map[v1.Hash]string // media types of manifests
	tags     map[string]v1.Hash // by repository:tag
	auth     *Auth
	presign  *Presign
	passes   map[string]*pass
	issued   int
	fault    Fault
	requests []*Request
	asked    map[string]int
}

// New starts a registry that ends with the test.
func New(tb testing.TB) *Registry {
	tb.Helper()
	r := &Registry{
		closing: make(chan struct{}),
		blobs:   map[v1.Hash][]byte{}, types: map[v1.Hash]string{}, tags: map[string]v1.Hash{},
		passes: map[string]*pass{}, asked: map[string]int{},
	}
	r.Host = r.listen(tb, "127.0.0.1:0")
	r.Beside = r.listen(tb, "127.0.0.1:0")
	r.Elsewhere = r.listen(tb, "127.0.0.2:0")
	tb.Cleanup(func() { close(r.closing) }) // before the servers, which wait for their requests
	return r
}

// sendBuffer is what the kernel may hold for a connection, in bytes. Little, so that
// what was sent is about what the client has read.
const sendBuffer = 32 << 10

func (r *Registry) listen(tb testing.TB, address string) string {
	tb.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(r)
	srv.Listener.Close()
	srv.Listener = l
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if tcp, ok := c.(*net.TCPConn); ok && state == http.StateNew {
			tcp.SetWriteBuffer(sendBuffer)
		}
	}
	srv.Start()
	tb.Cleanup(srv.Close)
	return l.Addr().String()
}

// URL is where the registry is.
func (r *Registry) URL() string { return "http://" + r.Host }

// ServeHTTP gives the right answer, spoiled by the fault.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	q := parse(req)
	r.mu.Lock()
	key := q.Method + " " + q.Path
	q.N = r.asked[key]
	r.asked[key]++
	a := r.answer(q, req)
	fault := r.fault
	r.requests = append(r.requests, q)
	seen := *q
	r.mu.Unlock()
	right := a.Body
	if fault != nil {
		r.faults.Lock()
		fault(seen, a)
		r.faults.Unlock()
	}
	r.mu.Lock()
	q.Status = a.Status
	whole := a.Status == http.StatusOK && bytes.HasPrefix(a.whole, a.Body)
	q.Spoiled = q.Method == http.MethodGet && a.Status/100 == 2 && !whole && !bytes.HasPrefix(right, a.Body)
	r.mu.Unlock()
	r.send(w, req, q, a)
}

func parse(req *http.Request) *Request {
	q := &Request{
		Method: req.Method, Host: req.Host, Path: req.URL.Path, Query: req.URL.RawQuery,
		Range: req.Header.Get("Range"), Authorization: req.Header.Get("Authorization"), At: time.Now(),
	}
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	n := len(parts)
	switch {
	case parts[0] == "v2" && n == 1:
		q.Kind = Ping
	case parts[0] == "v2" && n >= 4 && parts[n-2] == "manifests":
		q.Kind, q.Repository, q.Name = Manifest, strings.Join(parts[1:n-2], "/"), parts[n-1]
	case parts[0] == "v2" && n >= 4 && parts[n-2] == "blobs":
		q.Kind, q.Repository, q.Name = Blob, strings.Join(parts[1:n-2], "/"), parts[n-1]
	case parts[0] == "token":
		q.Kind = Token
	case parts[0] == "storage" && n == 2:
		q.Kind, q.Name = Storage, parts[1]
	default:
		q.Kind = Other
	}
	if from, ok := strings.CutPrefix(q.Range, "bytes="); ok {
		from, _, _ = strings.Cut(from, "-")
		q.From, _ = strconv.ParseInt(from, 10, 64)
	}
	return q
}

// answer is what a good registry says. The lock is held.
func (r *Registry) answer(q *Request, req *http.Request) *Answer {
	a := &Answer{Status: http.StatusOK, Header: http.Header{}, CutAt: Never, StallAt: Never}
	if q.Kind == Token {
		r.token(q, req, a)
		return a
	}
	if q.Kind != Storage && !r.allowed(q, a) {
		return a
	}
	switch q.Kind {
	case Ping:
		a.content("application/json", []byte("{}"))
	case Manifest:
		h, ok := r.tags[q.Repository+":"+q.Name]
		if !ok {
			h, _ = v1.NewHash(q.Name)
		}
		if r.types[h] == "" {
			a.refuse(http.StatusNotFound, "MANIFEST_UNKNOWN")
			break
		}
		a.content(r.types[h], r.blobs[h])
		a.Header.Set("Docker-Content-Digest", h.String())
	case Blob, Storage:
		h, _ := v1.NewHash(q.Name)
		body, ok := r.blobs[h]
		switch {
		case q.Kind == Storage && !r.signed(q, a):
		case !ok || r.types[h] != "":
			a.refuse(http.StatusNotFound, "BLOB_UNKNOWN")
		case q.Kind == Blob && r.presign != nil:
			r.redirect(h, a)
		default:
			a.Header.Set("Docker-Content-Digest", h.String())
			a.blob(body, q.Range)
		}
	default:
		a.refuse(http.StatusNotFound, "UNSUPPORTED")
	}
	return a
}

// piece is how much is written at once, in bytes.
const piece = 32 << 10

func (r *Registry) send(w http.ResponseWriter, req *http.Request, q *Request, a *Answer) {
	if a.StallAt == BeforeHead {
		r.hold(req, 0)
	}
	if a.CutAt == BeforeHead || a.StallAt == BeforeHead {
		r.hangUp(w, q, a.Reset)
		return
	}
	for k, v := range a.Header {
		w.Header()[k] = v
	}
	if a.Chunked {
		w.Header().Del("Content-Length")
	} else if a.Header.Get("Content-Length") == "" {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.Body)))
	}
	w.WriteHeader(a.Status)
	flusher := w.(http.Flusher)
	flusher.Flush()
	if q.Method == http.MethodHead {
		return
	}
	body, broken := a.Body, false
	if n, err := strconv.Atoi(w.Header().Get("Content-Length")); err == nil {
		broken = n > len(body)
		body = body[:min(n, len(body))]
	}
	for _, at := range []int{a.CutAt, a.StallAt} {
		if at >= 0 && at <= len(body) {
			body, broken = body[:at], true
		}
	}
	size := piece
	if a.Pause > 0 {
		size = a.Piece
	}
	for part := range slices.Chunk(body, size) {
		if _, err := w.Write(part); err != nil {
			r.hangUp(w, q, false)
			return
		}
		flusher.Flush()
		r.mu.Lock()
		q.Sent += int64(len(part))
		r.mu.Unlock()
		if a.Pause > 0 && !r.hold(req, a.Pause) {
			break
		}
	}
	if a.StallAt >= 0 {
		r.hold(req, 0)
	}
	if broken || req.Context().Err() != nil {
		r.hangUp(w, q, a.Reset)
	}
}

// hold waits, for ever if that is 0, and tells whether the client is still there.
func (r *Registry) hold(req *http.Request, wait time.Duration) bool {
	var after <-chan time.Time
	if wait > 0 {
		after = time.After(wait)
	}
	select {
	case <-after:
		return true
	case <-req.Context().Done():
	case <-r.closing:
	}
	return false
}

// hangUp ends the connection.
func (r *Registry) hangUp(w http.ResponseWriter, q *Request, reset bool) {
	r.mu.Lock()
	q.Broken = true
	r.mu.Unlock()
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		tcp.SetLinger(0)
	}
	conn.Close()
}
