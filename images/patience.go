package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"atoll/bundle"
)

const (
	// maxTries is how often a request is sent before its refusal is believed.
	maxTries = 6
	// maxWait is the longest wait a server may ask for. Docker Hub's limit is
	// counted over six hours: nobody sits in front of that.
	maxWait = 10 * time.Minute
	// maxRefusal bounds what is read of a refused answer to keep its connection, in bytes.
	maxRefusal = 64 << 10
)

// patience is a transport that asks a host for no more at once than it stands, tries
// again where that may help, and waits as long as a server asks. A wait holds for all
// requests to the host.
type patience struct {
	inner http.RoundTripper
	agent string
	pause time.Duration // before the second try; it doubles with each
	idle  time.Duration // a body that brings nothing for so long is cut
	most  int           // requests to one host at once
	log   *slog.Logger

	mu    sync.Mutex
	gates map[string]*gate // by host
	low   map[string]bool  // hosts that were told to have little left
}

// gate gives the host's.
func (p *patience) gate(host string) *gate {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.gates[host]
	if g == nil {
		if p.gates == nil {
			p.gates, p.low = map[string]*gate{}, map[string]bool{}
		}
		g = newGate(p.most)
		p.gates[host] = g
	}
	return g
}

func (p *patience) RoundTrip(req *http.Request) (*http.Response, error) {
	host := req.URL.Host
	gate := p.gate(host)
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", p.agent)
	for try := 1; ; try++ {
		s, err := gate.enter(req.Context())
		if err != nil {
			return nil, err
		}
		resp, err := p.send(req, s)
		again := worthAnotherTry(req, resp, err)
		spared := again && isOverload(resp, err) && s.overloaded() // it may be our own doing
		if !again || try == maxTries && !spared {
			if err == nil && resp.StatusCode < http.StatusBadRequest {
				s.good()
				p.heed(host, gate, resp.Header)
			}
			return resp, err
		}
		// Jitter keeps parallel requests from coming back all at once.
		wait := time.Duration(float64(p.pause<<(try-1)) * (1 + rand.Float64()/4))
		if resp != nil {
			wait = max(wait, askedWait(resp.Header, time.Now()))
			drain(resp)
		}
		if wait > maxWait {
			return nil, fmt.Errorf("%s asks to wait until %s, in %s: run the same command again then: %w",
				host, time.Now().Add(wait).Format(time.DateTime), wait.Round(time.Second), bundle.ErrIncomplete)
		}
		if resp != nil && (resp.StatusCode == http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "") {
			if gate.hold(wait) {
				p.log.Warn("registry asks to wait", "host", host, "status", resp.StatusCode, "wait", wait.Round(time.Second))
			}
		}
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
		if req, err = rewind(req); err != nil {
			return nil, err
		}
		if spared {
			try--
		}
	}
}

// send sends a request once. The slot is free when the answer's body was read or closed.
func (p *patience) send(req *http.Request, s *slot) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := p.inner.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		s.leave()
		return nil, err
	}
	resp.Body = &heldBody{ReadCloser: resp.Body, slot: s, idle: p.idle, ctx: ctx, cancel: cancel}
	return resp, nil
}

// drain ends an answer that nobody reads, and keeps its connection if that is cheap.
func drain(resp *http.Response) {
	io.Copy(io.Discard, io.LimitReader(resp.Body, maxRefusal)) // that it was refused is what counts
	resp.Body.Close()
}

// heed minds what a host says of its own accord about how much it will still answer.
func (p *patience) heed(host string, g *gate, h http.Header) {
	q, ok := readQuota(h, time.Now())
	if !ok {
		return
	}
	if q.left == 0 && q.reset > 0 && q.reset <= maxWait && g.hold(q.reset) {
		p.log.Warn("registry has no requests left for now", "host", host, "wait", q.reset.Round(time.Second))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if q.limit > 0 && q.left*10 <= q.limit && !p.low[host] {
		p.low[host] = true
		p.log.Warn("registry will soon answer no more requests: log in for a larger allowance", "host", host, "left", q.left, "of", q.limit)
	}
}

// heldBody is a body that holds a slot until it is read or closed, and that ends when
// nothing comes for too long.
type heldBody struct {
	io.ReadCloser
	slot   *slot
	idle   time.Duration
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (b *heldBody) Read(p []byte) (int, error) {
	stall := stallError{b.idle}
	t := time.AfterFunc(b.idle, func() { b.cancel(stall) })
	n, err := b.ReadCloser.Read(p)
	t.Stop()
	if err == nil {
		return n, nil
	}
	switch {
	case err == io.EOF:
	case context.Cause(b.ctx) == error(stall):
		err = stall
	case isBroken(err):
		b.slot.overloaded()
	}
	b.slot.leave()
	return n, err
}

func (b *heldBody) Close() error {
	b.slot.leave()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// stallError says that a body brought nothing for too long. It is a timeout.
type stallError struct{ after time.Duration }

func (e stallError) Error() string { return fmt.Sprintf("nothing came for %s", e.after) }
func (stallError) Timeout() bool   { return true }
func (stallError) Temporary() bool { return true }

// rewind makes a request that can be sent once more.
func rewind(req *http.Request) (*http.Request, error) {
	req = req.Clone(req.Context())
	if req.GetBody == nil {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, fmt.Errorf("sending request again: %w", err)
	}
	req.Body = body
	return req, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

func worthAnotherTry(req *http.Request, resp *http.Response, err error) bool {
	if req.Method == http.MethodHead { // asked for what is good to know, and can do without
		return false
	}
	if req.Context().Err() != nil || req.Body != nil && req.GetBody == nil {
		return false
	}
	if err != nil {
		return isReset(err)
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// isOverload tells the answers of a host that has too much to do.
func isOverload(resp *http.Response, err error) bool {
	if err != nil {
		return isBroken(err)
	}
	return resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable
}

// isReset tells a connection that was broken off, or that took too long.
func isReset(err error) bool {
	var timeout net.Error
	return isBroken(err) || errors.As(err, &timeout) && timeout.Timeout()
}

// isBroken tells a connection that the other side broke off.
func isBroken(err error) bool {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	// net/http's errors of HTTP/2 have no exported types.
	text := err.Error()
	return strings.Contains(text, "http2: server sent GOAWAY") || strings.Contains(text, "stream error: stream ID") ||
		strings.Contains(text, "http2: client connection lost")
}
