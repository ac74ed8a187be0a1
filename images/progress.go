package images

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// sampleEvery is how often Progress is told while blobs move.
const sampleEvery = 200 * time.Millisecond

// Progress is how far [Mirror] is. The first is told before a byte is asked for, the
// last after the last one came.
type Progress struct {
	Done, Total int64       // bytes of all that the store lacks
	Blobs       int         // how many those are
	Hosts       []HostShare // who is asked for them first, by name
	Moving      []Blob      // are on their way, in the order in which they were begun
	Finished    []Blob      // have come since the last Progress
}

// Blob is content on its way.
type Blob struct {
	Name        string  // the image, file or package that needs it; one of them, if several do
	Digest      v1.Hash // of the content
	Host        string  // who sends it: a host, or a place on disk
	Done, Total int64   // bytes
}

// HostShare is what one host is asked for.
type HostShare struct {
	Host  string
	Blobs int
	Bytes int64
}

// tally adds up what parallel transfers move. Each counts for itself, without a lock;
// the sum is made when it is looked at.
type tally struct {
	report func(Progress)
	total  int64
	blobs  int
	hosts  []HostShare

	mu       sync.Mutex
	ended    int64 // bytes of transfers that are over
	moving   []*transfer
	finished []Blob
}

// transfer is a blob on its way.
type transfer struct {
	blob Blob // but for Host and Done
	host atomic.Pointer[string]
	done atomic.Int64
}

func newTally(list []*download, report func(Progress)) *tally {
	t := &tally{report: report, blobs: len(list)}
	shares := map[string]HostShare{}
	for _, d := range list {
		size := max(d.size, 0) // a manifest may say anything
		t.total += size
		s := shares[d.firstHost()]
		shares[d.firstHost()] = HostShare{Host: d.firstHost(), Blobs: s.Blobs + 1, Bytes: s.Bytes + size}
	}
	for _, s := range shares {
		t.hosts = append(t.hosts, s)
	}
	slices.SortFunc(t.hosts, func(a, b HostShare) int { return cmp.Compare(a.Host, b.Host) })
	return t
}

func (d *download) firstHost() string {
	if len(d.sources) == 0 {
		return ""
	}
	return d.sources[0].host
}

// begin counts a blob among those on their way.
func (t *tally) begin(d *download) *transfer {
	tr := &transfer{blob: Blob{Name: d.name, Digest: d.digest, Total: d.size}}
	tr.from(d.firstHost())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.moving = append(t.moving, tr)
	return tr
}

// add counts n more bytes; fewer than none if they have to come again.
func (tr *transfer) add(n int64) { tr.done.Add(n) }

// from tells who sends the blob now.
func (tr *transfer) from(host string) { tr.host.Store(&host) }

func (tr *transfer) now() Blob {
	b := tr.blob
	b.Host, b.Done = *tr.host.Load(), tr.done.Load()
	return b
}

// end takes a blob from those on their way. What came of one that failed stays counted,
// unless it was taken back.
func (t *tally) end(tr *transfer, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.moving = slices.DeleteFunc(t.moving, func(other *transfer) bool { return other == tr })
	t.ended += tr.done.Load()
	if err == nil {
		t.finished = append(t.finished, tr.now())
	}
}

// tell reports once.
func (t *tally) tell() {
	t.mu.Lock()
	p := Progress{Done: t.ended, Total: t.total, Blobs: t.blobs, Hosts: t.hosts, Finished: t.finished}
	t.finished = nil
	for _, tr := range t.moving {
		b := tr.now()
		p.Done += b.Done
		p.Moving = append(p.Moving, b)
	}
	t.mu.Unlock()
	t.report(p)
}

// watch reports now, again and again, and when the function that it returns is called.
func (t *tally) watch() (stop func()) {
	t.tell()
	quit := every(t.tell)
	return func() {
		quit()
		t.tell()
	}
}

// every calls tell again and again, until the function that it returns was called.
func every(tell func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				tell()
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// reading reports how many of so many images were read, until stop is called. What takes
// no time is reported once.
func (c *client) reading(total int) (read func(images int), stop func()) {
	add, stop := counting(int64(total), func(done, total int64) { c.Reading(int(done), int(total)) })
	return func(images int) { add(int64(images)) }, stop
}

// counting reports how far something is that others do in parallel.
func counting(total int64, report func(done, total int64)) (add func(n int64), stop func()) {
	var done atomic.Int64
	tell := func() { report(done.Load(), total) }
	quit := every(tell)
	return func(n int64) { done.Add(n) }, func() {
		quit()
		tell()
	}
}

// left is how many bytes have not come.
func (t *tally) left() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total - t.ended
}
