package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"atoll/bundle"
	"atoll/test/regtest"
)

// How a child of TestFaultSchedules ends, besides well and killed.
const (
	childClear = 10 // with an error that wraps ErrIncomplete
	childOther = 11
)

// TestFaultSchedules runs mirror against random faults with random kill -9 and restarts:
// each run ends well, with a store that verifies, or with a clear error, or is killed; a
// run without faults completes whatever was left; nothing is fetched twice but what was
// in buffers, or was spoiled.
//
// The schedules of some seeds are run. ATOLL_TEST_SECONDS runs those of random seeds for so
// long, and ATOLL_TEST_SEED the one of that seed.
func TestFaultSchedules(t *testing.T) {
	if dir := os.Getenv("ATOLL_TEST_CHILD"); dir != "" {
		os.Exit(scheduleChild(dir))
	}
	seed, last := uint64(1), uint64(6)
	var end time.Time
	if s, err := strconv.ParseUint(os.Getenv("ATOLL_TEST_SEED"), 10, 64); err == nil {
		seed, last = s, s
	} else if s, err := strconv.Atoi(os.Getenv("ATOLL_TEST_SECONDS")); err == nil {
		seed, end = uint64(time.Now().UnixNano()), time.Now().Add(time.Duration(s)*time.Second)
	}
	n, runs, kills := 0, 0, 0
	for ; (seed <= last || time.Now().Before(end)) && !t.Failed(); seed++ {
		n++
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Logf("to repeat it: ATOLL_TEST_SEED=%d go test -run TestFaultSchedules ./images", seed)
			s := newSchedule(t, seed)
			s.run()
			runs, kills = runs+s.runs, kills+s.kills
		})
	}
	t.Logf("%d schedules with %d runs, of which %d were killed", n, runs, kills)
}

// schedule is one random course of events.
type schedule struct {
	*testing.T
	seed   uint64
	rng    *rand.Rand
	r      *regtest.Registry
	dir    string
	locked []bundle.LockedImage
	faults []regtest.Fault
	often  float64 // how likely a request meets a fault
	count  int     // of all requests
	expire int     // tokens and signed URLs expire with every so many requests; 0 for never

	whole       map[string]int // blobs that the store had, and before which request
	starts      []int          // which request was the first of each run
	runs, kills int
}

// honest faults send nothing wrong, dishonest ones do, and final ones end a run soon.
var (
	honest = []regtest.Fault{
		regtest.Cut(0), regtest.Cut(0.3), regtest.Cut(0.8), regtest.Reset(0.5), regtest.Drop, regtest.Stall(0.4),
		regtest.Trickle, regtest.Length(9), regtest.Length(-9), regtest.Empty, regtest.Refuse(429), regtest.Refuse(500), regtest.Refuse(502),
		regtest.Refuse(503), regtest.Refuse(408), regtest.Chunked, regtest.Digest,
		regtest.All(regtest.Chunked, regtest.Cut(0.6)),
	}
	dishonest = []regtest.Fault{
		regtest.Flip, regtest.Longer, regtest.Page, regtest.NoRange, regtest.WrongRange, regtest.FalseRange, regtest.Around,
		regtest.All(regtest.Flip, regtest.Cut(0.7)),
	}
	final = []regtest.Fault{regtest.Refuse(401), regtest.Refuse(403), regtest.Refuse(404), regtest.Silence}
)

func newSchedule(t *testing.T, seed uint64) *schedule {
	s := &schedule{T: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), r: regtest.New(t), dir: t.TempDir(), whole: map[string]int{}}
	shared := [][]byte{regtest.Bytes(seed, 6<<20), regtest.Bytes(seed+1, 1<<20), regtest.Bytes(seed+2, 70_000), {}}
	var refs []string
	for i := range 1 + s.rng.IntN(3) {
		img := regtest.Image{Arch: "amd64", Layers: [][]byte{shared[i%2]}}
		for range s.rng.IntN(4) {
			img.Layers = append(img.Layers, shared[s.rng.IntN(len(shared))], regtest.Bytes(s.rng.Uint64(), s.rng.IntN(500_000)))
		}
		name := fmt.Sprintf("lab/image:%d", i)
		d := s.r.AddImage(img, name)
		if s.rng.IntN(2) == 0 {
			s.r.AddIndex(append(others(s.r), d), name)
		}
		refs = append(refs, "lab.test/"+name)
	}
	s.locked = mustLock(t, caseOptions(s.r), refs...)
	s.r.Forget()
	if s.rng.IntN(2) == 0 {
		s.r.Login(&regtest.Auth{})
	}
	if s.rng.IntN(2) == 0 {
		s.r.Store(&regtest.Presign{At: []string{s.r.Beside, s.r.Elsewhere}[s.rng.IntN(2)], Uses: s.rng.IntN(2)})
	}
	s.expire = []int{0, 7, 20, 40}[s.rng.IntN(4)]
	pool := slices.Clone(honest)
	if s.rng.IntN(2) == 0 {
		pool = append(append(pool, dishonest...), dishonest...)
	}
	if s.rng.IntN(4) == 0 {
		pool = append(pool, final...)
	}
	for range 1 + s.rng.IntN(6) {
		s.faults = append(s.faults, pool[s.rng.IntN(len(pool))])
	}
	s.often = []float64{0.05, 0.2, 0.5, 0.9}[s.rng.IntN(4)]
	return s
}

// fault is the schedule's: which requests it hits depends on the seed and the request alone.
func (s *schedule) fault(q regtest.Request, a *regtest.Answer) {
	if s.count++; s.expire > 0 && s.count%s.expire == 0 {
		s.r.Expire()
	}
	if len(a.Body) > 500_000 {
		regtest.Slow(64<<10, 2*time.Millisecond)(q, a) // so that it can be killed midway
	}
	sum := fnv.New64a()
	fmt.Fprint(sum, s.seed, q.Kind, q.Name, q.N)
	rng := rand.New(rand.NewPCG(s.seed, sum.Sum64()))
	if rng.Float64() < s.often {
		s.faults[rng.IntN(len(s.faults))](q, a)
	}
}

func (s *schedule) run() {
	lock, err := json.Marshal(s.locked)
	if err != nil {
		s.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "lock.json"), lock, 0o644); err != nil {
		s.Fatal(err)
	}
	s.r.Break(s.fault)
	for range 1 + s.rng.IntN(5) {
		killAfter := int64(-1)
		if s.rng.IntN(3) > 0 {
			killAfter = s.rng.Int64N([]int64{1 << 10, 1 << 20, 8 << 20}[s.rng.IntN(3)])
		}
		done := s.child(killAfter)
		st := s.store()
		checkStore(s.T, st)
		if done {
			verify(s.T, st, s.locked)
		}
	}
	s.r.Break(nil)
	if !s.child(-1) {
		s.Error("a run without faults did not complete what was left")
	}
	s.checkOnce()
	st := s.store()
	verify(s.T, st, s.locked)
	s.r.Forget()
	if err := mirrorCase(s.T, caseOptions(s.r), st, s.locked); err != nil || s.r.Count() > 0 {
		s.Errorf("a full store: %v, %d requests", err, s.r.Count())
	}
}

func (s *schedule) store() *bundle.Store {
	st, err := bundle.OpenStore(filepath.Join(s.dir, "store"))
	if err != nil {
		s.Fatal(err)
	}
	return st
}

// child runs mirror in a process of its own, and kills it after so many bytes of this
// run if that is not negative. It tells whether the run ended well.
func (s *schedule) child(killAfter int64) (done bool) {
	s.runs++
	begun := len(s.r.Requests())
	s.starts = append(s.starts, begun)
	cmd := exec.Command(os.Args[0], "-test.run=^TestFaultSchedules$")
	cmd.Env = append(os.Environ(), "ATOLL_TEST_CHILD="+s.dir, "ATOLL_TEST_REGISTRY="+s.r.URL())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	killed := false
	for limit := time.After(time.Minute); ; {
		select {
		case err = <-ended:
		case <-limit:
			cmd.Process.Kill()
			s.Fatalf("it hangs: %v\n%s", <-ended, &out)
		case <-time.After(time.Millisecond):
			if !killed && killAfter >= 0 && s.sentSince(begun) >= killAfter {
				killed = true
				cmd.Process.Kill() // kill -9
			}
			continue
		}
		break
	}
	s.noteWhole()
	var exit *exec.ExitError
	switch errors.As(err, &exit); {
	case err == nil:
		return true
	case killed && exit != nil && !exit.Exited():
		s.kills++
	case exit != nil && exit.ExitCode() == childClear:
		if !strings.Contains(out.String(), "lab.test/lab/image:") || strings.Contains(out.String(), "pass-") {
			s.Errorf("error is not clear, or tells a secret: %s", &out)
		}
	default:
		s.Errorf("it ended with %v:\n%s", err, &out)
	}
	return false
}

func (s *schedule) sentSince(begun int) (n int64) {
	for _, q := range s.r.Requests()[begun:] {
		n += q.Sent
	}
	return n
}

// noteWhole writes down what the store has.
func (s *schedule) noteWhole() {
	entries, err := os.ReadDir(filepath.Join(s.dir, "store", "sha256"))
	if err != nil && !errors.Is(err, os.ErrNotExist) { // killed before it began
		s.Fatal(err)
	}
	for _, e := range entries {
		name := "sha256:" + e.Name()
		if _, ok := s.whole[name]; !ok {
			s.whole[name] = len(s.r.Requests())
		}
	}
}

// checkOnce looks at what was sent. A request for a blob begins where the one before
// ended, buffers aside. Only after an answer that was spoiled may it come once more; and
// where that was the answer for a part, the rest of the run asks for no parts of that blob.
func (s *schedule) checkOnce() {
	type course struct {
		at      int64
		spoiled int
		noParts int // the run that asks for none
	}
	blobs := map[string]*course{}
	run := 0
	for i, q := range s.r.Requests() {
		for run < len(s.starts) && s.starts[run] <= i {
			run++
		}
		if q.Method != http.MethodGet || q.Kind != regtest.Manifest && q.Kind != regtest.Blob && q.Kind != regtest.Storage {
			continue
		}
		if before, ok := s.whole[q.Name]; ok && i >= before {
			s.Errorf("%s %s is asked for, though the store had it", q.Kind, q.Name)
		}
		if q.Status/100 != 2 {
			continue
		}
		c := blobs[q.Name]
		if c == nil {
			c = &course{}
			blobs[q.Name] = c
		}
		if q.From < c.at-unflushed {
			if c.spoiled == 0 && (q.From > 0 || c.noParts != run) {
				s.Errorf("%s is asked for from byte %d on, though %d had been sent", q.Name, q.From, c.at)
			}
			c.spoiled, c.at = max(0, c.spoiled-1), q.From
		}
		c.at = max(c.at, q.From+q.Sent)
		if q.Spoiled {
			c.spoiled++
			if q.From > 0 {
				c.noParts = run
			}
		}
	}
}

// scheduleChild is the process that is killed.
func scheduleChild(dir string) int {
	err := func() error {
		data, err := os.ReadFile(filepath.Join(dir, "lock.json"))
		if err != nil {
			return err
		}
		var l bundle.Lock
		if err := json.Unmarshal(data, &l.Images); err != nil {
			return err
		}
		s, err := bundle.OpenStore(filepath.Join(dir, "store"))
		if err != nil {
			return err
		}
		d, err := bundle.ParseDefinition("appliance.yaml", []byte("name: box\nk3s: {version: v1.34.4+k3s1}\nstack: lab\n"))
		if err != nil {
			return err
		}
		o := caseOptions(&regtest.Registry{Host: strings.TrimPrefix(os.Getenv("ATOLL_TEST_REGISTRY"), "http://")})
		o.idle = 100 * time.Millisecond
		return Mirror(context.Background(), d, &l, s, o)
	}()
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	if errors.Is(err, bundle.ErrIncomplete) {
		return childClear
	}
	return childOther
}
