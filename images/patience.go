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
	"strconv"
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

// patience is a transport that tries again where that may help, and waits as long
// as a server asks. A wait holds for all requests to the host.
type patience struct {
	inner   http.RoundTripper
	agent   string
	pause   time.Duration     // before the second try; it doubles with each
	schemes map[string]string // the only scheme a mirror's host may be asked by
	log     *slog.Logger

	mu    sync.Mutex
	until map[string]time.Time // hosts that asked to wait
}

func (p *patience) RoundTrip(req *http.Request) (*http.Response, error) {
	host := req.URL.Host
	if want := p.schemes[host]; want != "" && req.URL.Scheme != want {
		return nil, fmt.Errorf("mirror %s is asked by %s only", host, want)
	}
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", p.agent)
	for try := 1; ; try++ {
		if err := p.wait(req.Context(), host); err != nil {
			return nil, err
		}
		resp, err := p.inner.RoundTrip(req)
		if try == maxTries || !worthAnotherTry(req, resp, err) {
			return resp, err
		}
		// Jitter keeps parallel requests from coming back all at once.
		wait := time.Duration(float64(p.pause<<(try-1)) * (1 + rand.Float64()/4))
		if resp != nil {
			asked := retryAfter(resp.Header, time.Now())
			if asked > maxWait {
				resp.Body.Close()
				return nil, fmt.Errorf("%s asks to wait until %s, in %s: run the same command again then: %w",
					host, time.Now().Add(asked).Format(time.DateTime), asked.Round(time.Second), bundle.ErrIncomplete)
			}
			wait = max(wait, asked)
			io.Copy(io.Discard, io.LimitReader(resp.Body, maxRefusal)) // the refusal is what counts
			resp.Body.Close()
		}
		p.hold(host, wait, resp)
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
		if req, err = rewind(req); err != nil {
			return nil, err
		}
	}
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

// hold keeps other requests from a host that has had too many.
func (p *patience) hold(host string, wait time.Duration, resp *http.Response) {
	if resp == nil || resp.StatusCode != http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
		return
	}
	p.log.Warn("registry asks to wait", "host", host, "status", resp.StatusCode, "wait", wait.Round(time.Second))
	until := time.Now().Add(wait)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil {
		p.until = map[string]time.Time{}
	}
	if until.After(p.until[host]) {
		p.until[host] = until
	}
}

// wait returns when the host may be asked again.
func (p *patience) wait(ctx context.Context, host string) error {
	for {
		p.mu.Lock()
		left := time.Until(p.until[host])
		p.mu.Unlock()
		if left <= 0 {
			return ctx.Err()
		}
		if err := sleep(ctx, left); err != nil {
			return err
		}
	}
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
	if req.Context().Err() != nil || req.Body != nil && req.GetBody == nil {
		return false
	}
	if err != nil {
		return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isReset(err)
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// isReset tells a connection that was broken off, or that took too long.
func isReset(err error) bool {
	var timeout net.Error
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.As(err, &timeout) && timeout.Timeout()
}

// retryAfter reads the wait a server asks for, in seconds or as a date; 0 if none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}
