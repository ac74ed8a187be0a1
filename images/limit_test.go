package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func enter(t *testing.T, g *gate) *slot {
	t.Helper()
	s, err := g.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// full tells whether nobody more is let in.
func full(t *testing.T, g *gate) bool {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.active >= int(g.limit)
}

func TestGateGrowsAndHalves(t *testing.T) {
	g := newGate(6, time.Minute)
	var in []*slot
	for range firstLimit {
		in = append(in, enter(t, g))
	}
	if !full(t, g) {
		t.Errorf("more than %d are let in at first", firstLimit)
	}
	for range 100 {
		in[0].good()
	}
	in = append(in, enter(t, g), enter(t, g))
	if !full(t, g) {
		t.Error("more than the most are let in")
	}
	for _, s := range in { // they fail together
		s.overloaded()
	}
	if g.limit != 3 {
		t.Errorf("limit is %v after one overload, want half of 6", g.limit)
	}
	for _, s := range in {
		s.leave()
		s.leave() // counts once
	}
	for i := range 9 {
		s := enter(t, g)
		if helps := s.overloaded(); helps != (i == 0) { // 3, then 1.5, which is one
			t.Errorf("after %d overloads: may asking for less help? %v", i, helps)
		}
		s.leave()
	}
	if g.limit != 1 {
		t.Errorf("limit is %v after many, want 1", g.limit)
	}
	s := enter(t, g)
	if !full(t, g) {
		t.Error("a second is let in")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("no more")
	cancel(why)
	if _, err := g.enter(ctx); err != why {
		t.Errorf("got %v, want the context's cause", err)
	}
	next := make(chan *slot)
	go func() {
		s, _ := g.enter(context.Background())
		next <- s
	}()
	s.leave()
	<-next
}

func TestGateHolds(t *testing.T) {
	g := newGate(1, time.Minute)
	if !g.hold(time.Hour) || g.hold(time.Minute) {
		t.Error("a hold is news once")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := g.enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want to be held", err)
	}
}

// TestOverloadedHost: a host that stands two requests at once gets all answered in the end,
// and one whose connections break is asked for less as well.
func TestOverloadedHost(t *testing.T) {
	for name, refuse := range map[string]func(w http.ResponseWriter){
		"429":   func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) },
		"503":   func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"break": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			var active, refused, peak atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n := active.Add(1)
				defer active.Add(-1)
				if n > peak.Load() {
					peak.Store(n)
				}
				if n > 2 {
					refused.Add(1)
					refuse(w)
					return
				}
				time.Sleep(2 * time.Millisecond) // so that they meet
				io.WriteString(w, "ok")
			}))
			defer srv.Close()
			c, err := newClient(&Options{Jobs: 30, pause: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for i := range 60 {
				wg.Go(func() {
					resp, err := c.http.Get(fmt.Sprintf("%s/%d", srv.URL, i))
					if err != nil {
						t.Error(err)
						return
					}
					defer resp.Body.Close()
					if resp.StatusCode != http.StatusOK {
						t.Error(resp.Status)
					}
				})
			}
			wg.Wait()
			if peak.Load() > firstLimit+2 {
				t.Errorf("%d at once", peak.Load())
			}
			if refused.Load() > 60 {
				t.Errorf("%d refusals for 60 requests: it does not learn", refused.Load())
			}
		})
	}
}

// TestBodyThatBreaks: a transfer that is broken off is a sign of overload; one that the
// user breaks off is not.
func TestBodyThatBreaks(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "part")
		w.(http.Flusher).Flush()
		if r.URL.Path == "/wait" {
			<-r.Context().Done()
		}
		panic(http.ErrAbortHandler)
	}))
	defer srv.Close()
	c, err := newClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	limit := func() float64 {
		return c.http.Transport.(*patience).gate(strings.TrimPrefix(srv.URL, "http://")).limit
	}
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/wait", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	io.ReadAll(resp.Body)
	if limit() < firstLimit {
		t.Errorf("limit is %v after the user broke off", limit())
	}
	if resp, err = c.http.Get(srv.URL + "/break"); err != nil {
		t.Fatal(err)
	}
	io.ReadAll(resp.Body)
	if limit() >= firstLimit {
		t.Errorf("limit is %v after a broken transfer", limit())
	}
}

func TestPace(t *testing.T) {
	p := &pace{rate: 1000}
	now := time.Unix(0, 0)
	var last time.Duration
	for range 11 {
		last = p.take(now, 100)
	}
	if last != time.Second {
		t.Errorf("after 1000 bytes at 1000 a second: wait of %v", last)
	}
	if wait := p.take(now.Add(time.Minute), 100); wait != 0 {
		t.Errorf("after a pause: wait of %v", wait)
	}
	for rate, want := range map[int64]int64{1: 1, 6400: 100, 1 << 40: maxPiece} {
		if got := (&pace{rate: rate}).piece(); got != want {
			t.Errorf("%d bytes a second: pieces of %d, want %d", rate, got, want)
		}
	}
}

// TestLimitRate: every body counts against the one rate.
func TestLimitRate(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1000)) }))
	defer srv.Close()
	c, err := newClient(&Options{LimitRate: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for range 3 {
		resp, err := c.http.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	p := c.http.Transport.(*patience).inner.(*hosts).pace
	if took := p.free.Sub(start); took < 3000*time.Second/(1<<20) {
		t.Errorf("3000 bytes were given %v", took)
	}
}

func TestQuota(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, tc := range []struct {
		header map[string]string
		wait   time.Duration
		quota  quota
		ok     bool
	}{
		{header: map[string]string{}},
		{header: map[string]string{"Retry-After": "7"}, wait: 7 * time.Second},
		{header: map[string]string{"Retry-After": "-7"}},
		{header: map[string]string{"Retry-After": "soon"}},
		{header: map[string]string{"Retry-After": "99999999999999999999"}, wait: epochs * time.Second},
		{header: map[string]string{"Retry-After": now.Add(time.Minute).UTC().Format(http.TimeFormat)}, wait: time.Minute},
		{header: map[string]string{"Retry-After": now.Add(-time.Minute).UTC().Format(http.TimeFormat)}},
		{header: map[string]string{"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600"}, quota: quota{100, 76, 0}, ok: true},
		{header: map[string]string{"RateLimit-Limit": "100", "RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, wait: 30 * time.Second, quota: quota{100, 0, 30 * time.Second}, ok: true},
		{header: map[string]string{"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1800000009"}, wait: 9 * time.Second, quota: quota{60, 0, 9 * time.Second}, ok: true},
		{header: map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000009"}, quota: quota{}, ok: true},
		{header: map[string]string{"RateLimit": `"default";r=0;t=12`}, wait: 12 * time.Second, quota: quota{0, 0, 12 * time.Second}, ok: true},
		{header: map[string]string{"RateLimit": `"default";r=5;t=12`}, quota: quota{0, 5, 12 * time.Second}, ok: true},
		{header: map[string]string{"RateLimit-Remaining": "-1"}},
		{header: map[string]string{"RateLimit": "=;;r=;=r"}},
	} {
		h := http.Header{}
		for k, v := range tc.header {
			h.Set(k, v)
		}
		if got := askedWait(h, now); got != tc.wait {
			t.Errorf("%v: wait of %v, want %v", tc.header, got, tc.wait)
		}
		if got, ok := readQuota(h, now); got != tc.quota || ok != tc.ok {
			t.Errorf("%v: %+v, %v, want %+v, %v", tc.header, got, ok, tc.quota, tc.ok)
		}
	}
}

// TestQuotaIsHeeded: a host that says that nothing is left is left alone.
func TestQuotaIsHeeded(t *testing.T) {
	left := "1"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("RateLimit-Remaining", left)
		w.Header().Set("RateLimit-Reset", "60")
	}))
	defer srv.Close()
	c, err := newClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	g := c.http.Transport.(*patience).gate(strings.TrimPrefix(srv.URL, "http://"))
	ask := func() time.Duration {
		resp, err := c.http.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return time.Until(g.until)
	}
	if held := ask(); held > 0 {
		t.Errorf("held for %v, though one is left", held)
	}
	left = "0"
	if held := ask(); held < 50*time.Second || held > time.Minute {
		t.Errorf("held for %v", held)
	}
}
