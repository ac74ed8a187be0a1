package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// source is a place that content can be read from.
type source struct {
	host string // who has it, for errors
	path string // a file on disk, or
	url  string // a URL, asked by
	http func(context.Context) (*http.Client, error)
}

// plainSource is a URL that needs no login.
func (c *client) plainSource(u string) source {
	host := u
	if parsed, err := url.Parse(u); err == nil {
		host = parsed.Host
	}
	return source{host: host, url: u, http: func(context.Context) (*http.Client, error) { return c.http, nil }}
}

// blob is a blob's source.
func (r *repository) blob(digest fmt.Stringer) source {
	return source{host: r.host, url: r.base + "blobs/" + digest.String(), http: r.client}
}

// open reads from offset on. size is the whole length, -1 if it is not known;
// so is the length it returns. A server that cannot give a part gives the whole,
// and what is before offset is dropped.
func (s source) open(ctx context.Context, offset, size int64) (io.ReadCloser, int64, error) {
	if s.path != "" {
		return s.openFile(offset)
	}
	hc, err := s.http(ctx)
	if err != nil {
		return nil, 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, 0, err
	}
	// What is hashed is what is stored: no transfer compression.
	req.Header.Set("Accept-Encoding", "identity")
	if offset > 0 {
		req.Header.Set("Range", byteRange(offset, size))
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, 0, err
	}
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		resp.Body.Close()
		return nil, 0, err
	}
	if resp.StatusCode == http.StatusOK {
		if _, err := io.CopyN(io.Discard, resp.Body, offset); err != nil {
			resp.Body.Close()
			return nil, 0, fmt.Errorf("going on at byte %d: %w", offset, err)
		}
		return resp.Body, resp.ContentLength, nil
	}
	if got := resp.Header.Get("Content-Range"); !strings.HasPrefix(got, fmt.Sprintf("bytes %d-", offset)) {
		resp.Body.Close()
		return nil, 0, fmt.Errorf("going on at byte %d: got range %q", offset, got)
	}
	return resp.Body, -1, nil
}

// byteRange is closed where it can be: some registries refuse an open one.
func byteRange(offset, size int64) string {
	if size > 0 {
		return fmt.Sprintf("bytes=%d-%d", offset, size-1)
	}
	return fmt.Sprintf("bytes=%d-", offset)
}

func (s source) openFile(offset int64) (io.ReadCloser, int64, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", s.path)
	}
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

const (
	// maxStuck is how often a stream is opened again without getting on.
	maxStuck = 5
	// gettingOn is what counts as such, in bytes: a server that sends a byte and
	// hangs up is not worth a thousand tries.
	gettingOn = 256 << 10
)

// stream reads a source to its end. A connection that breaks, or brings nothing
// for too long, is opened again where it stopped.
type stream struct {
	ctx  context.Context
	src  source
	size int64 // -1 if not known
	c    *client

	body   io.ReadCloser
	watch  *watchdog
	offset int64
	opened int64 // offset when the body was opened
	stuck  int
	err    error // the end of it, if that is an error
}

// stream reads src; size is its length, or -1.
func (c *client) stream(ctx context.Context, src source, size int64) *stream {
	return &stream{ctx: ctx, src: src, size: size, c: c}
}

func (s *stream) Read(p []byte) (int, error) {
	for {
		if s.err != nil {
			return 0, s.err
		}
		if s.body == nil {
			if err := s.open(); err != nil {
				s.broke(err)
				continue
			}
		}
		s.watch.reset()
		n, err := s.body.Read(p)
		s.offset += int64(n)
		switch {
		case err == io.EOF && (s.size < 0 || s.offset >= s.size):
			return n, io.EOF
		case err == io.EOF:
			s.broke(io.ErrUnexpectedEOF)
		case err != nil:
			s.broke(err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (s *stream) open() error {
	ctx, cancel := context.WithCancel(s.ctx)
	s.watch = newWatchdog(s.c.idle, cancel)
	s.opened = s.offset
	var err error
	var size int64
	if s.body, size, err = s.src.open(ctx, s.offset, s.size); err != nil {
		s.watch.stop()
		s.body = nil
		return err
	}
	if s.size < 0 {
		s.size = size // then a cut is seen
	}
	return nil
}

// broke decides whether to go on after an error.
func (s *stream) broke(err error) {
	s.Close()
	if s.offset-s.opened >= gettingOn {
		s.stuck = 0
	}
	s.stuck++
	var refused *transport.Error
	switch {
	case s.ctx.Err() != nil:
		s.err = context.Cause(s.ctx)
	case s.src.path != "" || s.stuck > maxStuck || errors.As(err, &refused) || s.offset == s.opened && !transient(err):
		s.err = err
	default:
		s.c.Log.Debug("connection broke", "url", s.src.url, "at", s.offset, "error", err)
		if err := sleep(s.ctx, s.c.pause<<(s.stuck-1)); err != nil {
			s.err = err
		}
	}
}

// Close may be called more than once.
func (s *stream) Close() error {
	if s.body == nil {
		return nil
	}
	err := s.body.Close()
	s.body = nil
	s.watch.stop()
	return err
}

// transient tells errors of a moment from those that stay, like an unknown host.
func transient(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) || isReset(err)
}

// watchdog cancels a transfer that brings nothing.
type watchdog struct {
	timer  *time.Timer
	after  time.Duration
	cancel context.CancelFunc
}

func newWatchdog(after time.Duration, cancel context.CancelFunc) *watchdog {
	// The first bytes may take as long as all tries and waits for an answer do,
	// so the clock starts with the first read.
	return &watchdog{after: after, cancel: cancel}
}

func (w *watchdog) reset() {
	if w.timer == nil {
		w.timer = time.AfterFunc(w.after, w.cancel)
		return
	}
	w.timer.Reset(w.after)
}

func (w *watchdog) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.cancel()
}
