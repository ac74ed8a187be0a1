package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
)

// fileServer serves one content, and counts what it is asked for.
type fileServer struct {
	url  string
	data []byte

	mu     sync.Mutex
	asked  []string // the Range of each request; empty for the whole
	answer http.HandlerFunc
}

func newFileServer(t *testing.T, data []byte) *fileServer {
	t.Helper()
	s := &fileServer{data: data}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.Header.Get("Range"))
		answer := s.answer
		s.mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.data))
	}))
	t.Cleanup(srv.Close)
	s.url = srv.URL + "/file"
	return s
}

// cutAt sends the whole up to byte n, and breaks off.
func (s *fileServer) cutAt(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(s.data)))
		w.Write(s.data[:n])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func (s *fileServer) client(t *testing.T) *client {
	t.Helper()
	c, err := newClient(&Options{pause: time.Millisecond, idle: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestFetchGoesOn: what an earlier run left is gone on with, whatever the server makes
// of the range that it is asked for.
func TestFetchGoesOn(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	size, half := int64(len(data)), len(data)/2
	h := bundle.DigestOf(data)
	closed := fmt.Sprintf("bytes=%d-%d", half, size-1)
	ranged := func(status int, contentRange string, body []byte) func(*fileServer) http.HandlerFunc {
		return func(s *fileServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") == "" {
					w.Write(s.data)
					return
				}
				w.Header().Set("Content-Range", contentRange)
				w.WriteHeader(status)
				w.Write(body)
			}
		}
	}
	whole := func(s *fileServer) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Write(s.data) }
	}
	for _, tc := range []struct {
		name   string
		answer func(*fileServer) http.HandlerFunc
		spoil  bool   // the bytes on disk
		asked  string // the ranges of all requests
		fails  string
	}{
		{name: "range", asked: closed},
		{name: "wrong bytes on disk", spoil: true, asked: closed + " whole"},
		{name: "no ranges", answer: whole, asked: closed},
		{name: "no ranges, wrong bytes on disk", answer: whole, spoil: true, asked: closed},
		{name: "416", answer: ranged(416, fmt.Sprintf("bytes */%d", size), nil), asked: closed + " whole"},
		{name: "416 of another length", answer: ranged(416, fmt.Sprintf("bytes */%d", half), nil), asked: closed + " " + closed + " " + closed, fails: "it has 524288 bytes, not 1048576"},
		{name: "400", answer: ranged(400, "", nil), asked: closed + " whole"},
		{name: "other range", answer: ranged(206, fmt.Sprintf("bytes 0-%d/%d", size-1, size), data), asked: closed + " whole"},
		{name: "shorter range", answer: ranged(206, fmt.Sprintf("bytes %d-%d/%d", half, half, size), data[:1]), asked: closed + " whole"},
		{name: "shorter range, total unknown", answer: ranged(206, fmt.Sprintf("bytes %d-%d/*", half, half), data[:1]), asked: closed + " whole"},
		{name: "other total", answer: ranged(206, fmt.Sprintf("bytes %d-%d/%d", half, size-1, size+1), data[half:]), asked: closed + " whole"},
		{name: "total unknown", answer: ranged(206, fmt.Sprintf("bytes %d-%d/*", half, size-1), data[half:]), asked: closed},
		{name: "no range told", answer: ranged(206, "", data[half:]), asked: closed + " whole"},
		{name: "too little for the range", answer: ranged(206, fmt.Sprintf("bytes %d-%d/%d", half, size-1, size), data[:half-1]), asked: closed + " bytes=1048575-1048575 whole"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newFileServer(t, data)
			store := newStore(t)
			p, err := store.Partial(t.Context(), h, size)
			if err != nil {
				t.Fatal(err)
			}
			left := bytes.Clone(data[:half])
			if tc.spoil {
				left[100] ^= 1
			}
			p.Fill(t.Context(), bytes.NewReader(left)) // is cut short
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if tc.answer != nil {
				s.answer = tc.answer(s)
			}
			var tr transfer
			c := s.client(t)
			err = c.fetch(t.Context(), store, &download{name: "file x", digest: h, size: size, sources: []source{c.plainSource(s.url)}}, &tr)
			if tc.fails != "" {
				var corrupt *bundle.CorruptError
				if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("got %v, want it corrupt: %s", err, tc.fails)
				}
				if !strings.HasPrefix(s.ranges(), tc.asked) {
					t.Errorf("asked for %s, want %s", s.ranges(), tc.asked)
				}
				return
			}
			if err != nil || tr.done.Load() != size {
				t.Fatalf("told of %d bytes of %d: %v", tr.done.Load(), size, err)
			}
			if s.ranges() != tc.asked {
				t.Errorf("asked for %s, want %s", s.ranges(), tc.asked)
			}
			checkStore(t, store)
			if !has(t, store, h) {
				t.Error("it is not in the store")
			}
		})
	}
}

// ranges tells what was asked for.
func (s *fileServer) ranges() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, r := range s.asked {
		if r == "" {
			r = "whole"
		}
		out = append(out, r)
	}
	return strings.Join(out, " ")
}

// TestFetchEnds: a server that always cuts and knows no ranges is given up.
func TestFetchEnds(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	s := newFileServer(t, data)
	late, early := s.cutAt(len(data)*3/4), s.cutAt(len(data)/4)
	s.answer = func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		odd := len(s.asked)%2 == 1
		s.mu.Unlock()
		if len(s.ranges()) > 1000 {
			t.Error("there is no end to it")
			return
		}
		if odd {
			late(w, r)
		}
		early(w, r)
	}
	c := s.client(t)
	err := c.fetch(t.Context(), newStore(t), &download{name: "file x", digest: bundle.DigestOf(data), size: int64(len(data)), sources: []source{c.plainSource(s.url)}}, &transfer{})
	var corrupt *bundle.CorruptError
	if !errors.As(err, &corrupt) || len(s.asked) > maxStuck+2 {
		t.Errorf("asked %d times, and got %v", len(s.asked), err)
	}
}

// TestMirrorGoesOnAfterFailure: a run that fails in the middle of a layer leaves what came.
func TestMirrorGoesOnAfterFailure(t *testing.T) {
	l := newLab(t)
	img := randomImage(t, "amd64", 2_000_000, 1)
	l.push(t, img, "ghcr.io/a/x:1")
	lock := l.lockImages(t, "ghcr.io/a/x:1")
	s := newStore(t)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	l.Path, l.Times, l.Stall = digest(t, layers[0]).String(), -1, time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	o := l.options()
	o.Progress = func(p Progress) {
		if p.Done > 500_000 {
			cancel()
		}
	}
	if err := Mirror(ctx, definition(t, ""), lock, s, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want it cancelled", err)
	}
	l.heal()
	o.Progress = nil
	if err := Mirror(t.Context(), definition(t, ""), lock, s, o); err != nil {
		t.Fatal(err)
	}
	if l.ranges != 1 || len(l.requests) != 2 { // the ping, and the rest of the layer
		t.Errorf("asked %v, %d times for a part", l.requests, l.ranges)
	}
	checkImage(t, s, img, true)
	checkStore(t, s)
}

// TestMirrorVerify: what rots on disk without a trace is found, and fetched again.
func TestMirrorVerify(t *testing.T) {
	l := newLab(t)
	img := randomImage(t, "amd64", 200_000, 1)
	l.push(t, img, "ghcr.io/a/x:1")
	lock := l.lockImages(t, "ghcr.io/a/x:1")
	s, o := newStore(t), l.options()
	if err := Mirror(t.Context(), definition(t, ""), lock, s, o); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	path := s.Path(digest(t, layers[0]))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[1000] ^= 1
	if err := errors.Join(os.WriteFile(path, data, 0o644), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	for _, verify := range []bool{false, true} {
		l.heal()
		o.Verify = verify
		if err := Mirror(t.Context(), definition(t, ""), lock, s, o); err != nil {
			t.Fatal(err)
		}
		if asked := len(l.requests) > 0; asked != verify {
			t.Errorf("verify is %v: asked %v", verify, l.requests)
		}
	}
	checkStore(t, s)
	checkImage(t, s, img, true)
}

// TestStream reads content whose digest nobody knows, over a connection that breaks.
func TestStream(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	other := bytes.Clone(data)
	other[5] ^= 1
	for _, tc := range []struct {
		name string
		then func(*fileServer) http.HandlerFunc // after the cut
		err  error
	}{
		{"goes on", func(*fileServer) http.HandlerFunc { return nil }, nil},
		{"no ranges", func(s *fileServer) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.Write(s.data) }
		}, nil},
		{"changed", func(s *fileServer) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.Write(other) }
		}, errChanged},
		{"changed, with a tag", func(s *fileServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("ETag", `"two"`)
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(other))
			}
		}, errChanged},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newFileServer(t, data)
			cut := s.cutAt(len(data) / 2)
			s.answer = func(w http.ResponseWriter, r *http.Request) {
				s.mu.Lock()
				s.answer = tc.then(s)
				s.mu.Unlock()
				w.Header().Set("ETag", `"one"`)
				cut(w, r)
			}
			c := s.client(t)
			r := c.stream(t.Context(), c.plainSource(s.url), -1)
			defer r.Close()
			got, err := io.ReadAll(r)
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Fatalf("got %v, want %v", err, tc.err)
			}
			if err == nil && !bytes.Equal(got, data) {
				t.Error("got other bytes")
			}
		})
	}
}

// TestFetchFromDisk: a file that is not as long as the lock says is no more than that.
func TestFetchFromDisk(t *testing.T) {
	data := []byte("some bytes")
	for name, content := range map[string]string{"right": "some bytes", "longer": "some bytes and more", "shorter": "some"} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		c := (&fileServer{}).client(t)
		err := c.fetch(t.Context(), newStore(t), &download{name: "file f", digest: bundle.DigestOf(data), size: int64(len(data)), sources: []source{{host: "here", path: path}}}, &transfer{})
		var corrupt *bundle.CorruptError
		if (err == nil) != (name == "right") || err != nil && !errors.As(err, &corrupt) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	c := (&fileServer{}).client(t)
	var corrupt *bundle.CorruptError
	if err := c.fetch(t.Context(), newStore(t), &download{name: "x", digest: v1.Hash{Algorithm: "sha256"}, size: -1}, &transfer{}); !errors.As(err, &corrupt) {
		t.Errorf("negative size: got %v", err)
	}
}
