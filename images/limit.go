package images

import (
	"context"
	"sync"
	"time"
)

// firstLimit is how many requests a host gets at once at first.
const firstLimit = 4

// gate is how much one host is asked at once, since when, and whether it is there. The
// number grows by one with as many good answers as it is itself; a sign of overload halves
// it.
//
// A host is away when a request got no answer through all its tries, and no other request
// got one meanwhile; or when none did for two rests. Then nobody waits for the same again:
// requests fail at once, but for one that may look now and then, with a single try. Any
// answer ends it.
type gate struct {
	most float64
	rest time.Duration // of a host that is away; also the least between two words of its trouble

	mu     sync.Mutex
	limit  float64
	active int
	cuts   int           // how often the limit was halved
	until  time.Time     // nothing is asked before
	freed  chan struct{} // closed when there may be room

	answered time.Time // last; zero for never
	silent   time.Time // since when requests are sent in vain; zero if the last was not
	away     error     // what is got instead of an answer; nil if there is no need to know
	look     time.Time // when one may look whether the host is back
	troubled bool      // tries again, and has had no good answer since
	told     time.Time // when that was told last

	held bool // it was left alone once for want of requests
	low  bool // was told to have little left
}

func newGate(most int, rest time.Duration) *gate {
	return &gate{most: float64(most), rest: rest, limit: float64(min(firstLimit, most)), freed: make(chan struct{})}
}

// slot is the right to have one request under way.
type slot struct {
	gate *gate
	cuts int // as they were when it was asked for
	once sync.Once
}

// enter waits for the host's time and for room. Of a host that is away it gives the error.
func (g *gate) enter(ctx context.Context) (*slot, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		g.mu.Lock()
		now := time.Now()
		if g.away != nil && now.Before(g.look) {
			defer g.mu.Unlock()
			return nil, g.away
		}
		left, freed := g.until.Sub(now), g.freed
		if left <= 0 && g.active < int(g.limit) {
			g.look = now.Add(g.rest)
			g.active++
			s := &slot{gate: g, cuts: g.cuts}
			g.mu.Unlock()
			return s, nil
		}
		g.mu.Unlock()
		if left > 0 {
			if err := sleep(ctx, left); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-freed:
		}
	}
}

// leave gives the slot back. It may be called more than once.
func (s *slot) leave() {
	s.once.Do(func() {
		g := s.gate
		g.mu.Lock()
		defer g.mu.Unlock()
		g.active--
		g.wake()
	})
}

func (g *gate) wake() {
	close(g.freed)
	g.freed = make(chan struct{})
}

// good counts an answer towards a higher limit.
func (s *slot) good() {
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.troubled = false
	if g.limit = min(g.most, g.limit+1/g.limit); g.active < int(g.limit) {
		g.wake()
	}
}

// overloaded halves the limit. Requests that were under way together fail together:
// only the first of them counts. It tells whether that may help: whether more than one
// request was allowed. A host that answers nobody is soon asked by one at a time.
func (s *slot) overloaded() bool {
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.cuts != g.cuts {
		return true
	}
	many := g.limit >= 2
	g.cuts++
	g.limit = max(1, g.limit/2)
	return many
}

// hold keeps all requests from the host for so long. It tells whether that is news:
// whether none were held before.
func (g *gate) hold(wait time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	news := !g.until.After(now)
	if until := now.Add(wait); until.After(g.until) {
		g.until = until
	}
	return news
}

// heed minds a quota. It tells whether the host is left alone for it, and whether it is news
// that little is left: each once. From then on its refusals tell, for some send nonsense
// with every good answer.
func (g *gate) heed(q quota) (held, low bool) {
	held = q.left == 0 && q.reset > 0 && q.reset <= maxWait
	low = q.limit > 0 && q.left*10 <= q.limit
	g.mu.Lock()
	held, low = held && !g.held, low && !g.low
	g.held, g.low = g.held || held, g.low || low
	g.mu.Unlock()
	if held {
		g.hold(q.reset)
	}
	return held, low
}

// answer notes that the host said something.
func (g *gate) answer() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answered, g.silent, g.away = time.Now(), time.Time{}, nil
}

// hasAnswered tells whether the host ever said something.
func (g *gate) hasAnswered() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.answered.IsZero()
}

// vain notes that what was sent at a time got no answer. It tells whether nothing did for
// long.
func (g *gate) vain(sent time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.answered.After(sent) {
		return false
	}
	if g.silent.IsZero() {
		g.silent = sent
	}
	return time.Since(g.silent) >= 2*g.rest
}

// silence notes that a request which began at since got err instead of an answer, for all
// its tries, or for as long as makes sense.
func (g *gate) silence(err error, since time.Time, long bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if long || !g.answered.After(since) {
		g.away, g.look = err, time.Now().Add(g.rest)
	}
}

func (g *gate) isAway() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.away != nil
}

// trouble notes that the host is tried again. It tells whether that is news: whether it
// was not told since the last good answer, and not for a rest either.
func (g *gate) trouble() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	news := !g.troubled && (g.told.IsZero() || now.Sub(g.told) >= g.rest)
	g.troubled = true
	if news {
		g.told = now
	}
	return news
}

// pace shares one rate among all transfers.
type pace struct {
	rate int64 // bytes a second

	mu   sync.Mutex
	free time.Time // when all that was taken has had its time
}

// maxPiece bounds what is read at once under a rate, in bytes.
const maxPiece = 32 << 10

// piece is how much to read at once: little enough for no transfer to look stalled
// because of the others.
func (p *pace) piece() int64 { return min(max(p.rate/64, 1), maxPiece) }

// take reserves n bytes at the time now, and gives how long to wait for them.
func (p *pace) take(now time.Time, n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free.Before(now) {
		p.free = now
	}
	wait := p.free.Sub(now)
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return wait
}
