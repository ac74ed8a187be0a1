package images

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll/bundle"
	"atoll/test/regtest"
)

// logged is a log that may be read while it is written.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// limits are the shapes of a 429.
var limits = []struct {
	name   string
	body   string
	header func() []string
	least  time.Duration // what is asked for
}{
	{"JSON and seconds", `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`, func() []string { return []string{"Retry-After", "1"} }, time.Second},
	{"text and a date", "slow down", func() []string {
		return []string{"Retry-After", time.Now().Add(2 * time.Second).UTC().Format(http.TimeFormat)}
	}, time.Second}, // a date has whole seconds
	{"empty and nothing", "", func() []string { return nil }, 0},
	{"a page and nothing", "<html>429</html>", func() []string { return nil }, 0},
	{"nonsense", "", func() []string { return []string{"Retry-After", "soon"} }, 0},
	{"less than nothing", "", func() []string { return []string{"Retry-After", "-5"} }, 0},
	{"a date that is over", "", func() []string { return []string{"Retry-After", "Mon, 02 Jan 2006 15:04:05 GMT"} }, 0},
	{"a fraction", "", func() []string { return []string{"Retry-After", "0.5"} }, 0},
}

func limitFault(i int) regtest.Fault {
	return func(q regtest.Request, a *regtest.Answer) {
		regtest.Refuse(429, limits[i].header()...)(q, a)
		regtest.Plain(limits[i].body)(q, a)
	}
}

// TestTooManyRequests (07): a 429 of any shape is tried again, not before it asks for.
func TestTooManyRequests(t *testing.T) {
	for i, tc := range limits {
		for _, kind := range []regtest.Kind{regtest.Manifest, regtest.Blob, regtest.Token, regtest.Storage} {
			t.Run(tc.name+"/"+string(kind), func(t *testing.T) {
				t.Parallel()
				r := regtest.New(t)
				tiny(r, "lab/tiny:1")
				r.Login(&regtest.Auth{})
				if kind == regtest.Storage {
					r.Store(&regtest.Presign{At: r.Beside})
				}
				locked := mustLock(t, caseOptions(r), "lab.test/lab/tiny:1")
				r.Forget()
				r.Break(regtest.First(1, regtest.On(limitFault(i), kind)))
				var log logged
				o := caseOptions(r)
				o.Log = log.logger()
				s := newStore(t)
				if err := mirrorCase(t, o, s, locked); err != nil {
					t.Fatal(err)
				}
				verify(t, s, locked)
				refused := map[string]time.Time{}
				for _, q := range r.Requests() {
					key := q.Host + q.Path
					if at, ok := refused[key]; ok && q.At.Sub(at) < tc.least {
						t.Errorf("%s was asked again after %v, not %v", q.Path, q.At.Sub(at), tc.least)
					}
					if delete(refused, key); q.Status == 429 {
						refused[key] = q.At
					}
				}
				if !strings.Contains(log.String(), "asks to wait") {
					t.Errorf("nothing says that the registry asked to wait:\n%s", &log)
				}
			})
		}
	}
}

// TestWaitHoldsForHost (07): while one request waits, the others do not keep knocking.
func TestWaitHoldsForHost(t *testing.T) {
	r := regtest.New(t)
	img := regtest.Image{Arch: "amd64"}
	for i := range 40 {
		img.Layers = append(img.Layers, regtest.Bytes(uint64(i), 2000))
	}
	r.AddImage(img, "lab/many:1")
	o := caseOptions(r)
	o.Jobs = 3
	locked := mustLock(t, o, "lab.test/lab/many:1")
	r.Forget()
	var refused time.Time
	r.Break(regtest.On(func(q regtest.Request, a *regtest.Answer) {
		if refused.IsZero() {
			refused = time.Now()
			regtest.Refuse(429, "Retry-After", "1")(q, a)
		}
	}, regtest.Blob))
	if err := mirrorCase(t, o, newStore(t), locked); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, q := range r.Requests() {
		if q.At.After(refused) && q.At.Before(refused.Add(time.Second)) {
			n++
		}
	}
	if n > 2*o.Jobs { // those that were on their way
		t.Errorf("%d requests while the registry had asked to wait", n)
	}
}

// TestLongWait (07, d): whoever asks for a day is not waited for without a word, and not
// asked again.
func TestLongWait(t *testing.T) {
	for name, wait := range map[string]string{
		"seconds":                "86400",
		"a date":                 time.Now().Add(24 * time.Hour).UTC().Format(http.TimeFormat),
		"more than fits":         "99999999999",
		"more than fits a word":  "999999999999999999999999999999",
		"more than fits a sleep": "9223372037",
	} {
		for _, kind := range []regtest.Kind{regtest.Manifest, regtest.Blob, regtest.Token, regtest.Storage} {
			t.Run(name+"/"+string(kind), func(t *testing.T) {
				t.Parallel()
				r := regtest.New(t)
				tiny(r, "lab/tiny:1")
				r.Login(&regtest.Auth{})
				if kind == regtest.Storage {
					r.Store(&regtest.Presign{At: r.Beside})
				}
				locked := mustLock(t, caseOptions(r), "lab.test/lab/tiny:1")
				r.Forget()
				r.Break(regtest.On(regtest.Refuse(429, "Retry-After", wait), kind))
				err := mirrorCase(t, caseOptions(r), newStore(t), locked)
				checkClear(t, err, "lab.test/lab/tiny:1")
				if err != nil && !strings.Contains(err.Error(), "asks to wait") {
					t.Errorf("error does not say for how long: %v", err)
				}
				asked := map[string]int{}
				for _, q := range r.Requests() {
					if asked[q.Path]++; asked[q.Path] == 2 && q.Kind == kind && kind != regtest.Token {
						t.Errorf("%s was asked again", q.Path)
					}
				}
			})
		}
	}
}

// TestStalledBlob (09): one blob that brings nothing any more, or little at a time.
func TestStalledBlob(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault regtest.Fault
		want  outcome
	}{
		{"once", regtest.First(1, regtest.Stall(0.6)), well},
		{"once before the first byte", regtest.First(1, regtest.Stall(0)), well},
		{"once before the head", regtest.First(1, regtest.Silence), well},
		{"each time a little later", func(q regtest.Request, a *regtest.Answer) { a.StallAt = len(a.Body) * 9 / 10 }, either},
		{"always", regtest.Stall(0.1), fails},
		{"a byte at a time, once", regtest.First(1, regtest.Trickle), well},
		{"a byte at a time, always", regtest.Trickle, fails},
		{"always before the head", regtest.Silence, fails},
		{"slow, never silent", regtest.Slow(30_000, 50*time.Millisecond), well}, // a second: four times idle
	} {
		for _, kind := range []regtest.Kind{regtest.Blob, regtest.Storage} {
			t.Run(tc.name+"/"+string(kind), func(t *testing.T) {
				t.Parallel()
				r := regtest.New(t)
				img := tiny(r, "lab/tiny:1")
				healthy := regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(7, 50_000)}}
				r.AddImage(healthy, "lab/healthy:1")
				if kind == regtest.Storage {
					r.Store(&regtest.Presign{At: r.Elsewhere})
				}
				locked := mustLock(t, caseOptions(r), "lab.test/lab/tiny:1", "lab.test/lab/healthy:1")
				r.Forget()
				large := hashOf(img.Layers[1])
				r.Break(regtest.On(regtest.Of(tc.fault, large.String()), kind))
				s := newStore(t)
				o := caseOptions(r)
				if tc.want == fails {
					o.idle = impatient
				}
				err := mirrorCase(t, o, s, locked)
				if tc.want == well && err != nil || tc.want == fails && err == nil {
					t.Errorf("got %v", err)
				}
				if err != nil {
					checkClear(t, err, "lab.test/lab/tiny:1")
					if strings.Contains(err.Error(), "healthy") {
						t.Errorf("error is also about the healthy image: %v", err)
					}
				} else {
					verify(t, s, locked)
				}
				if tc.name == "once" && r.Sent(large) > 600_000+100_000 {
					t.Errorf("%d bytes were sent of 600000: it began anew", r.Sent(large))
				}
				if tc.name == "a byte at a time, once" && !goneOn(r, kind, large.String()) {
					t.Error("it did not go on behind what came")
				}
				if tc.name == "slow, never silent" && r.Count(kind) > 5 {
					t.Errorf("%d requests for what only needs time", r.Count(kind))
				}
				verify(t, s, locked[1:])
				r.Break(nil)
				if err := mirrorCase(t, caseOptions(r), s, locked); err != nil {
					t.Errorf("next run: %v", err)
				}
				verify(t, s, locked)
			})
		}
	}
}

// goneOn tells whether a blob was asked for from the middle on.
func goneOn(r *regtest.Registry, kind regtest.Kind, name string) bool {
	return slices.ContainsFunc(r.Requests(), func(q regtest.Request) bool {
		return q.Kind == kind && q.Name == name && q.From > 0
	})
}

// TestInterruptedInSilence (09): Ctrl-C ends it at once, wherever it is silent; what came
// of a blob is used next time.
func TestInterruptedInSilence(t *testing.T) {
	for _, kind := range []regtest.Kind{regtest.Ping, regtest.Token, regtest.Manifest, regtest.Blob, regtest.Storage} {
		for name, fault := range map[string]regtest.Fault{"head": regtest.Silence, "body": regtest.Stall(0.5), "limit": regtest.Refuse(429, "Retry-After", "300")} {
			t.Run(string(kind)+"/"+name, func(t *testing.T) {
				t.Parallel()
				r := regtest.New(t)
				img := regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(1, 5_000_000)}}
				r.AddImage(img, "lab/large:1")
				if kind == regtest.Storage {
					r.Store(&regtest.Presign{At: r.Elsewhere})
				}
				o := caseOptions(r)
				o.idle = time.Hour
				locked := mustLock(t, o, "lab.test/lab/large:1")
				r.Login(&regtest.Auth{})
				r.Forget()
				silent := make(chan struct{}, 100)
				r.Break(regtest.On(func(q regtest.Request, a *regtest.Answer) {
					fault(q, a)
					silent <- struct{}{}
				}, kind))
				s := newStore(t)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- Mirror(ctx, definition(t, ""), &bundle.Lock{Images: locked}, s, o) }()
				select {
				case <-silent:
				case err := <-done:
					if kind == regtest.Ping && err == nil {
						t.Skip("it does not ping")
					}
					t.Fatalf("ended with %v", err)
				}
				large := hashOf(img.Layers[0])
				for kind == regtest.Blob && name == "body" && r.Sent(large) < 2_500_000 {
					time.Sleep(time.Millisecond)
				}
				cancel()
				select {
				case err := <-done:
					if !errors.Is(err, context.Canceled) {
						t.Errorf("got %v", err)
					}
				case <-time.After(20 * time.Second):
					t.Fatal("it goes on")
				}
				checkStore(t, s)
				before := r.Sent(large)
				r.Break(nil)
				r.Forget()
				if err := mirrorCase(t, caseOptions(r), s, locked); err != nil {
					t.Errorf("next run: %v", err)
				}
				verify(t, s, locked)
				if again := before + r.Sent(large) - 5_000_000; again > unflushed {
					t.Errorf("%d bytes came twice", again)
				}
			})
		}
	}
}

// unflushed is how much of each blob on its way may come twice after a run that was
// ended, in bytes: what was in buffers.
const unflushed = 2 << 20
