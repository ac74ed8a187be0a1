package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ether is a network on which hosts that may be away have all that is asked for. The
// clock is not the machine's: see [synctest].
type ether struct {
	fail func(req *http.Request) error // instead of an answer, if it is one

	mu   sync.Mutex
	sent map[string]int // requests, by host
}

func (e *ether) RoundTrip(req *http.Request) (*http.Response, error) {
	e.mu.Lock()
	e.sent[req.URL.Host]++
	e.mu.Unlock()
	if err := e.fail(req); err != nil {
		return nil, &hostError{host: req.URL.Host, error: err}
	}
	w := httptest.NewRecorder()
	fmt.Fprint(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"a/b",`+
		`"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"`+hashOf([]byte("{}")).String()+`","size":2},"layers":[]}`)
	resp := w.Result()
	resp.Request = req
	return resp, nil
}

// newEther gives a client on such a network, and its log of warnings.
func newEther(t *testing.T, fail func(req *http.Request) error) (*ether, *client, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	o := &Options{Keychain: authn.NewMultiKeychain(), certs: []string{t.TempDir()}}
	o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	c, err := newClient(o)
	if err != nil {
		t.Fatal(err)
	}
	e := &ether{fail: fail, sent: map[string]int{}}
	c.http.Transport.(*patience).inner = e
	return e, c, &log
}

// ways to be away, and how long it takes to learn that.
var (
	refuses = func() error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	drops = func() error {
		time.Sleep(30 * time.Second)
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	unheard = func() error {
		time.Sleep(time.Minute)
		return fmt.Errorf("awaiting headers: %w", os.ErrDeadlineExceeded)
	}
	breaks = func() error { return io.EOF }
)

// TestHostIsAway: a host that does not answer is known as such after a few minutes, for all
// images; those of other hosts are not its concern; and it is told once.
func TestHostIsAway(t *testing.T) {
	for name, tc := range map[string]struct {
		fail func() error
		says string
	}{
		"refuses": {refuses, "cannot be reached: "},
		"drops":   {drops, "cannot be reached: "},
		"mute":    {unheard, "keeps connections and sends nothing: "},
		"breaks":  {breaks, "breaks connections off again and again: "},
	} {
		for _, silent := range []string{"all", "manifests"} {
			t.Run(name+" "+silent, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e, c, log := newEther(t, func(req *http.Request) error {
						if req.URL.Host == "away.test" && (silent == "all" || req.URL.Path != "/v2/") {
							return tc.fail()
						}
						return nil
					})
					var wanted []Wanted
					for i := range 105 {
						wanted = append(wanted, Wanted{Reference: fmt.Sprintf("away.test/a/%d:1", i)})
						if i%20 == 0 {
							wanted = append(wanted, Wanted{Reference: fmt.Sprintf("well.test/a/%d:1", i)})
						}
					}
					start := time.Now()
					locked, err := c.resolveImages(t.Context(), wanted, "amd64")
					if took := time.Since(start); took > 5*time.Minute {
						t.Errorf("it took %v", took)
					}
					lacking, causes := 0, map[string]bool{}
					for _, f := range Failures(err) {
						lacking++
						_, cause, _ := strings.Cut(f.Error(), ": away.test ")
						causes[(&FetchError{Host: "away.test", Err: f.Err}).Said()] = true
						if !strings.HasPrefix(cause, tc.says) {
							t.Errorf("got %v", f)
						}
					}
					if lacking != 105 || len(causes) != 1 {
						t.Errorf("%d are lacking, want 105, by one cause: %v", lacking, causes)
					}
					for i, l := range locked {
						if strings.HasPrefix(wanted[i].Reference, "well.test") && l.Digest == (v1.Hash{}) {
							t.Errorf("%s was not got", wanted[i].Reference)
						}
					}
					// One that refuses is told from one that is away by one request.
					if n := e.sent["away.test"]; name != "refuses" && n > 150 {
						t.Errorf("%d requests", n)
					}
					want := 1
					if name == "refuses" && silent == "all" {
						want = 0 // never tried again: it may be a wrong name
					}
					if n := strings.Count(log.String(), "trying again"); n != want || strings.Contains(log.String(), "well.test") {
						t.Errorf("%d warnings, want %d:\n%s", n, want, log)
					}
				})
			})
		}
	}
}

// TestShortOutage: when the network is gone for a minute, no image fails.
func TestShortOutage(t *testing.T) {
	for name, fail := range map[string]func() error{"refuses": refuses, "drops": drops, "breaks": breaks} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				_, c, log := newEther(t, func(req *http.Request) error {
					time.Sleep(time.Second)
					if at := time.Since(start); at > 10*time.Second && at < 70*time.Second {
						return fail()
					}
					return nil
				})
				var wanted []Wanted
				for i := range 105 {
					wanted = append(wanted, Wanted{Reference: fmt.Sprintf("lab.test/a/%d:1", i)})
				}
				if _, err := c.resolveImages(t.Context(), wanted, "amd64"); err != nil {
					t.Error(err)
				}
				if n := strings.Count(log.String(), "trying again"); n != 1 {
					t.Errorf("%d warnings, want one:\n%s", n, log)
				}
			})
		})
	}
}

// TestHostIsBack: a host that was away is asked again when it has had its rest, by one
// request at a time, and by all once it answers. Its next trouble is told again.
func TestHostIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := true
		e, c, log := newEther(t, func(*http.Request) error {
			if away {
				return drops()
			}
			return nil
		})
		ask := func() error {
			resp, err := c.http.Get("http://lab.test/")
			if err == nil {
				resp.Body.Close()
			}
			return err
		}
		all := func() (failed int) {
			errs := make([]error, 20)
			var wg sync.WaitGroup
			for i := range errs {
				wg.Go(func() { errs[i] = ask() })
			}
			wg.Wait()
			for _, err := range errs {
				if err != nil {
					failed++
				}
			}
			return failed
		}
		if ask() == nil {
			t.Fatal("got an answer")
		}
		for range 3 {
			before := e.sent["lab.test"]
			if all() != 20 || e.sent["lab.test"] != before {
				t.Errorf("it is asked without a rest")
			}
			time.Sleep(2 * time.Minute)
			if all() != 20 || e.sent["lab.test"] != before+1 {
				t.Errorf("%d requests looked whether it is back, want one", e.sent["lab.test"]-before)
			}
		}
		away = false
		time.Sleep(2 * time.Minute)
		if err := ask(); err != nil {
			t.Error(err)
		}
		if n := all(); n != 0 {
			t.Errorf("%d fail though it is back", n)
		}
		away = true
		if all() != 20 {
			t.Error("got an answer")
		}
		if n := strings.Count(log.String(), "trying again"); n != 2 {
			t.Errorf("%d warnings, want two:\n%s", n, log)
		}
	})
}

// TestTriesAreTold: that a host is tried again is a warning once, however many requests
// meet the same, until it is well again.
func TestTriesAreTold(t *testing.T) {
	var mu sync.Mutex
	bad := 5
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if bad--; bad >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	var log logged
	c, err := newClient(&Options{pause: time.Millisecond, Log: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	for want := 1; want <= 2; want++ {
		resp, err := c.http.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if n := strings.Count(log.String(), "level=WARN"); n != want || !strings.Contains(log.String(), "status=503") {
			t.Errorf("%d warnings, want %d:\n%s", n, want, &log)
		}
		time.Sleep(restPauses * time.Millisecond)
		mu.Lock()
		bad = 5
		mu.Unlock()
	}
}

// TestCancelIsNoSilence: who breaks off learns nothing of the host.
func TestCancelIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, _ := newEther(t, func(req *http.Request) error {
			<-req.Context().Done()
			return req.Context().Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lab.test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.http.Do(req); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if c.http.Transport.(*patience).gate("lab.test").isAway() {
			t.Error("the host is taken to be away")
		}
	})
}
