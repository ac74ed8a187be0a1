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
	// maxTries is how often a request is sent before its refusal is believed. The waits
	// between add up to a minute, for which a network may be gone.
	maxTries = 7
	// slowTries is as how many tries one counts that was waited for in vain.
	slowTries = 3
	// restPauses is how long a host that is away is left alone, in first pauses.
	restPauses = 64
	// maxWait is the longest wait a server may ask for. Docker Hub's limit is
	// counted over six hours: nobody sits in front of that.
	maxWait = 10 * time.Minute
	// maxRefusal bounds what is read of a refused answer to keep its connection, in bytes.
	maxRefusal = 64 << 10
)

// patience is a transport that asks a host for no more at once than it stands, tries
// again where that may help, and waits as long as a server asks. A wait holds for all
// requests to the host; so does what it learns of a host that does not answer.
type patience struct {
	inner http.RoundTripper
	agent string
	pause time.Duration // before the second try; it doubles with each
	most  int           // requests to one host at once
	log   *slog.Logger

	mu    sync.Mutex
	gates map[string]*gate // by host
}

// spareRequest marks the context of requests for what is good to have, as HEAD asks for what
// is good to know: they are sent once, and say nothing of their host.
type spareRequest struct{}

// gate gives the host's.
func (p *patience) gate(host string) *gate {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.gates[host]
	if g == nil {
		if p.gates == nil {
			p.gates = map[string]*gate{}
		}
		g = newGate(p.most, restPauses*p.pause)
		p.gates[host] = g
	}
	return g
}

func (p *patience) RoundTrip(req *http.Request) (*http.Response, error) {
	host := req.URL.Host
	gate := p.gate(host)
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", p.agent)
	start := time.Now()
	for try, waits := 1, 0; ; try, waits = try+1, waits+1 {
		s, err := gate.enter(req.Context())
		if err != nil {
			return nil, err
		}
		known, sent := gate.hasAnswered(), time.Now()
		resp, err := p.send(req, s)
		again := worthAnotherTry(req, resp, err, known)
		spared := again && isOverload(resp, err) && s.overloaded() // it may be our own doing
		if again && err != nil && isTimeout(err) {
			try += slowTries - 1
		}
		long := again && err != nil && gate.vain(sent) && try > slowTries // not its first
		if !again || long || gate.isAway() || try >= maxTries && !spared {
			switch {
			case err == nil && resp.StatusCode < http.StatusBadRequest:
				s.good()
				p.heed(host, gate, resp.Header)
			case err == nil && resp.StatusCode == http.StatusTooManyRequests: // of HEAD too
				if wait := askedWait(resp.Header, time.Now()); wait <= maxWait {
					gate.hold(wait)
				}
			case err != nil && (again || isLoginOfProxy(err)):
				gate.silence(err, start, long)
			}
			return resp, err
		}
		// Jitter keeps parallel requests from coming back all at once.
		wait := time.Duration(float64(p.pause<<min(waits, maxTries)) * (1 + rand.Float64()/4))
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
				gate.trouble() // is told hereby
				p.log.Warn("registry asks to wait", "host", host, "status", resp.StatusCode, "wait", wait.Round(time.Second))
			}
		}
		p.tell(gate, host, resp, err)
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

// tell says that a host is tried again, once until it gives a good answer; more of it is
// for who looks for errors.
func (p *patience) tell(g *gate, host string, resp *http.Response, err error) {
	say := p.log.Debug
	if g.trouble() {
		say = p.log.Warn
	}
	switch {
	case err == nil:
		say("host answers with an error, trying again", "host", host, "status", resp.StatusCode)
	case isTimeout(err):
		say("host does not answer, trying again", "host", host, "error", err)
	default:
		say("connection failed, trying again", "host", host, "error", err)
	}
}

// send sends a request once. The slot is free when the answer's body was read or closed.
func (p *patience) send(req *http.Request, s *slot) (*http.Response, error) {
	resp, err := p.inner.RoundTrip(req)
	if err != nil {
		s.leave()
		return nil, err
	}
	s.gate.answer()
	resp.Body = &heldBody{ReadCloser: resp.Body, slot: s, told: func(err error) { p.tell(s.gate, req.URL.Host, nil, err) }}
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
	held, low := g.heed(q)
	if held {
		p.log.Warn("registry has no requests left for now", "host", host, "wait", q.reset.Round(time.Second))
	}
	if low {
		p.log.Warn("registry will soon answer no more requests: log in for a larger allowance", "host", host, "left", q.left, "of", q.limit)
	}
}

// heldBody is a body that holds a slot until it is read or closed.
type heldBody struct {
	io.ReadCloser
	slot *slot
	told func(error) // of a connection that fails in the middle
}

func (b *heldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.slot.gate.answer()
	}
	if err == nil {
		return n, nil
	}
	if err != io.EOF && isReset(err) {
		if b.told(err); isBroken(err) {
			b.slot.overloaded()
		}
	}
	b.slot.leave()
	return n, err
}

func (b *heldBody) Close() error {
	b.slot.leave()
	return b.ReadCloser.Close()
}

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

// worthAnotherTry tells whether the same request may get something better. A host that
// is known, for it has answered before, may be back soon where others are a wrong name.
func worthAnotherTry(req *http.Request, resp *http.Response, err error, known bool) bool {
	if req.Method == http.MethodHead || req.Context().Value(spareRequest{}) != nil {
		return false
	}
	if req.Context().Err() != nil || req.Body != nil && req.GetBody == nil {
		return false
	}
	if err != nil {
		var proxy *proxyError
		return isReset(err) || known && isUnreachable(err) || errors.As(err, &proxy) && mayMend(proxy.status)
	}
	return mayMend(resp.StatusCode)
}

// mayMend tells the statuses of a moment.
func mayMend(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// isUnreachable tells a connection that never was.
func isUnreachable(err error) bool {
	var dns *net.DNSError
	var op *net.OpError
	return errors.As(err, &dns) || errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect")
}

// isOverload tells the answers of a host that has too much to do.
func isOverload(resp *http.Response, err error) bool {
	if err != nil {
		return isBroken(err)
	}
	return resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable
}

// isReset tells a connection that was broken off, or that took too long.
func isReset(err error) bool { return isBroken(err) || isTimeout(err) }

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
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
