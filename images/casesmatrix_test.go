package images

import (
	"net/http"
	"testing"
	"time"

	"atoll/test/regtest"
)

// impatient is for what fails in the end: all its tries are waited for.
const impatient = 60 * time.Millisecond

type outcome int

const (
	well   outcome = iota // all is fetched
	fails                 // a clear error
	either                // one of the two
)

// pattern is a fault after the other, each for one request for a path.
func pattern(faults ...regtest.Fault) regtest.Fault {
	return func(q regtest.Request, a *regtest.Answer) {
		if q.N < len(faults) {
			faults[q.N](q, a)
		}
	}
}

// contentFaults are those of manifests and blobs, and what comes of them once for each
// path, and for ever.
var contentFaults = []struct {
	name       string
	fault      regtest.Fault
	once, ever outcome
}{
	{"cut at once", regtest.Cut(0), well, fails},
	{"cut midway", regtest.Cut(0.5), well, fails},
	{"reset", regtest.Reset(0.5), well, fails},
	{"drop", regtest.Drop, well, fails},
	{"stall", regtest.Stall(0.5), well, fails},
	{"silence", regtest.Silence, well, fails},
	{"trickle", regtest.Trickle, well, fails},
	{"flip", regtest.Flip, well, fails},
	{"longer", regtest.Longer, well, fails},
	{"longer and chunked", regtest.All(regtest.Longer, regtest.Chunked), well, fails},
	{"length too large", regtest.Length(7), well, fails},
	{"length too small", regtest.Length(-7), well, fails},
	{"empty", regtest.Empty, well, fails},
	{"page", regtest.Page, well, fails},
	{"digest is a lie", regtest.Digest, well, well},
	{"chunked", regtest.Chunked, well, well},
	{"chunked and cut", regtest.All(regtest.Chunked, regtest.Cut(0.5)), well, fails},
	{"401", regtest.Refuse(401), either, fails},
	{"403", regtest.Refuse(403), either, fails},
	{"404", regtest.Refuse(404), either, fails},
	{"408", regtest.Refuse(408), well, fails},
	{"429", regtest.Refuse(429), well, fails},
	{"500", regtest.Refuse(500), well, fails},
	{"502", regtest.Refuse(502), well, fails},
	{"503", regtest.Refuse(503), well, fails},
	{"504", regtest.Refuse(504), well, fails},
	{"206 for a whole", func(q regtest.Request, a *regtest.Answer) { a.Status = http.StatusPartialContent }, either, either},
	{"around", regtest.Around, well, fails},
	{"no range", regtest.All(regtest.First(1, regtest.Cut(0.5)), regtest.NoRange), well, well},
	{"another range", regtest.All(regtest.First(1, regtest.Cut(0.5)), regtest.WrongRange), well, either},
	{"a false range", regtest.All(regtest.First(1, regtest.Cut(0.5)), regtest.FalseRange), well, either},
	{"pattern", pattern(regtest.Refuse(503), regtest.Refuse(429), regtest.Drop, regtest.Refuse(500), regtest.Cut(0.3)), well, well},
	{"pattern of cuts", pattern(regtest.Cut(0.6), regtest.Stall(0.5), regtest.Reset(0.5), regtest.Refuse(502)), well, well},
}

// TestFaultsOfContent: whatever happens to a manifest or blob, at the registry or at its
// storage, once or for ever, ends well or with a clear error; the store holds nothing
// corrupt, and the next run completes it.
func TestFaultsOfContent(t *testing.T) {
	for _, kind := range []regtest.Kind{regtest.Manifest, regtest.Blob, regtest.Storage} {
		for _, tc := range contentFaults {
			for times, want := range map[string]outcome{"once": tc.once, "ever": tc.ever} {
				t.Run(string(kind)+"/"+tc.name+"/"+times, func(t *testing.T) {
					t.Parallel()
					r := regtest.New(t)
					tiny(r, "lab/tiny:1")
					if kind == regtest.Storage {
						r.Store(&regtest.Presign{At: r.Beside})
					}
					fault := regtest.On(tc.fault, kind)
					if times == "once" {
						fault = regtest.First(1, fault)
					}
					if kind == regtest.Storage && tc.name == "403" && times == "once" {
						want = well // a URL that has expired: there are new ones
					}
					tryFault(t, r, fault, want)
				})
			}
		}
	}
}

// TestFaultsOfLogin is the same for what comes before the content.
func TestFaultsOfLogin(t *testing.T) {
	text := regtest.Plain
	for _, tc := range []struct {
		name       string
		fault      regtest.Fault
		once, ever outcome
	}{
		{"cut", regtest.Cut(0.5), well, fails},
		{"drop", regtest.Drop, well, fails},
		{"stall", regtest.Stall(0.5), well, fails},
		{"silence", regtest.Silence, well, fails},
		{"trickle", regtest.Trickle, well, fails},
		{"empty", regtest.Empty, either, fails},
		{"page", regtest.Page, either, fails},
		{"401", regtest.Refuse(401), either, fails},
		{"403", regtest.Refuse(403), either, fails},
		{"404", regtest.Refuse(404), either, fails},
		{"429", regtest.Refuse(429), well, fails},
		{"500", regtest.Refuse(500), well, fails},
		{"503", regtest.Refuse(503), well, fails},
		{"around", regtest.Around, well, fails},
		{"null", text("null"), either, fails},
		{"a list", text("[]"), either, fails},
		{"no token", text(`{"expires_in":60}`), either, fails},
		{"empty token", text(`{"token":""}`), either, fails},
		{"a number", text(`{"token":7}`), either, fails},
		{"a token of lines", text(`{"token":"a\r\nb: c"}`), either, fails},
		{"a token that is none", text(`{"token":"other"}`), either, fails},
	} {
		for _, kind := range []regtest.Kind{regtest.Token, regtest.Ping} {
			for times, want := range map[string]outcome{"once": tc.once, "ever": tc.ever} {
				t.Run(string(kind)+"/"+tc.name+"/"+times, func(t *testing.T) {
					t.Parallel()
					r := regtest.New(t)
					tiny(r, "lab/tiny:1")
					r.Login(&regtest.Auth{})
					fault := regtest.On(tc.fault, kind)
					if times == "once" {
						fault = regtest.First(1, fault)
					}
					if kind == regtest.Ping {
						want = either // who needs it?
					}
					tryFault(t, r, fault, want)
				})
			}
		}
	}
}

// tryFault mirrors under a fault, and again when it is gone.
func tryFault(t *testing.T, r *regtest.Registry, fault regtest.Fault, want outcome) {
	t.Helper()
	locked := mustLock(t, caseOptions(r), "lab.test/lab/tiny:1")
	r.Forget()
	r.Expire()
	s := newStore(t)
	r.Break(fault)
	o := caseOptions(r)
	if want != well {
		o.idle = impatient
	}
	err := mirrorCase(t, o, s, locked)
	if err != nil && want == well {
		t.Errorf("got %v, want no error", err)
	}
	if err == nil && want == fails {
		t.Error("got no error")
	}
	if err != nil {
		checkClear(t, err, "lab.test/lab/tiny:1")
	}
	if n := r.Count(); n > 400 {
		t.Errorf("%d requests: it knocks without end", n)
	}
	checkStore(t, s)
	if err == nil {
		verify(t, s, locked)
	}
	r.Break(nil)
	if err := mirrorCase(t, caseOptions(r), s, locked); err != nil {
		t.Errorf("next run: %v", err)
	}
	verify(t, s, locked)
}

// TestFaultsOfResolving: a tag that cannot be read is an error, never a lock of
// something else.
func TestFaultsOfResolving(t *testing.T) {
	for _, tc := range contentFaults {
		switch tc.name {
		case "flip": // nothing says what a tag's manifest should be
			continue
		case "length too small", "longer", "longer and chunked": // may be JSON all the same
			continue
		}
		for times, want := range map[string]outcome{"once": tc.once, "ever": tc.ever} {
			t.Run(tc.name+"/"+times, func(t *testing.T) {
				t.Parallel()
				r := regtest.New(t)
				img := tiny(r)
				whole := r.AddIndex(append(others(r), r.AddImage(img)), "lab/multi:1")
				fault := regtest.On(tc.fault, regtest.Manifest)
				if times == "once" {
					fault = regtest.First(1, fault)
				}
				if tc.name == "page" || tc.name == "empty" {
					want = max(want, either) // an answer, though no image
				}
				r.Break(fault)
				o := caseOptions(r)
				if want == fails {
					o.idle = impatient
				}
				locked, err := lockCase(t, o, "lab.test/lab/multi:1")
				if err != nil && want == well || err == nil && want == fails {
					t.Errorf("got %v", err)
				}
				if err == nil && (locked[0].Digest != whole.Digest || locked[0].Size < 600_000) {
					t.Errorf("locked %+v, want %s", locked[0], whole.Digest)
				}
				if times == "ever" && tc.ever == fails && err == nil {
					t.Error("locked what cannot be read")
				}
				checkNoSecret(t, err)
			})
		}
	}
}
