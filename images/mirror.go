package images

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"atoll/bundle"
)

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// Mirror fetches all that the lock names into the store, by digest. What the store
// holds is not fetched again. Of an image that is an index the locked manifest is
// fetched whole; of other platforms only manifest and config, if the registry gives
// them. Failures do not keep the rest from being fetched; they come in one
// [IncompleteError], with a [GoneError] or [bundle.CorruptError] where that is the reason.
func Mirror(ctx context.Context, d *bundle.Definition, l *bundle.Lock, s *bundle.Store, o *Options) error {
	c, err := newClient(o)
	if err != nil {
		return err
	}
	if c.store = s; c.Verify {
		c.store = s.Rehashing()
	}
	m := &mirror{client: c, downloads: map[v1.Hash][]*download{}}
	err = m.addImages(ctx, l.Images)
	if asLocal(err) != nil && ctx.Err() == nil {
		return m.incomplete(ctx, err, l, newTally(nil, m.Progress))
	}
	errs := []error{err}
	m.addFiles(d, l.Files)
	errs = append(errs, m.addPackages(ctx, d, l.Packages))
	missing, err := m.missing(ctx)
	if err != nil {
		return err
	}
	t := newTally(missing, m.Progress)
	errs = append(errs, m.fetchAll(ctx, missing, t), s.Sync())
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := errors.Join(errs...); err != nil {
		return m.incomplete(ctx, err, l, t)
	}
	return nil
}

// mirror is one run of [Mirror].
type mirror struct {
	*client

	mu        sync.Mutex
	downloads map[v1.Hash][]*download // of one digest several only if some lie about its size

	spared sync.Map // hosts that are asked for no more manifests of other platforms
}

// add asks for a blob, once, however many images have it. Every place that has it
// is one more to try.
func (m *mirror) add(d download) {
	m.mu.Lock()
	defer m.mu.Unlock()
	same := m.downloads[d.digest]
	i := slices.IndexFunc(same, func(old *download) bool { return old.size == d.size })
	if i < 0 {
		m.downloads[d.digest] = append(same, &d)
		return
	}
	old := same[i]
	old.spare = old.spare && d.spare
	for _, name := range append([]string{d.name}, d.also...) {
		if name != old.name && !slices.Contains(old.also, name) {
			old.also = append(old.also, name)
		}
	}
	for _, src := range d.sources {
		if !slices.ContainsFunc(old.sources, func(have source) bool { return have.url == src.url && have.path == src.path }) {
			old.sources = append(old.sources, src)
		}
	}
}

func (m *mirror) addFiles(d *bundle.Definition, files []bundle.LockedFile) {
	for _, f := range files {
		m.add(download{name: "file " + f.Name, digest: f.Digest, size: f.Size, sources: []source{m.fileSource(d, f.URL)}})
	}
}

// missing lists what the store does not have, largest first, so that no large one
// is left alone at the end.
func (m *mirror) missing(ctx context.Context) ([]*download, error) {
	all := slices.Concat(slices.Collect(maps.Values(m.downloads))...)
	var total int64
	for _, d := range all {
		total += max(d.size, 0)
	}
	checked, stop := counting(total, m.Checking)
	defer stop()
	have := make([]bool, len(all))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(m.Jobs)
	for i, d := range all {
		g.Go(func() (err error) {
			have[i], err = m.store.Has(ctx, d.digest, d.size)
			checked(max(d.size, 0))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []*download
	for i, d := range all {
		if !have[i] {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b *download) int {
		return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(a.digest.Hex, b.digest.Hex))
	})
	return out, nil
}

// fetchAll fetches in parallel. What cannot be had is told after the rest is done.
func (m *mirror) fetchAll(ctx context.Context, list []*download, t *tally) error {
	defer t.watch()()
	return m.perHost(ctx, len(list), func(i int) string { return list[i].firstHost() }, func(ctx context.Context, i int) error {
		d := list[i]
		tr := t.begin(d)
		err := m.fetch(ctx, m.store, d, tr)
		t.end(tr, err)
		if err != nil && d.spare && ctx.Err() == nil && asLocal(err) == nil {
			m.Log.Warn("config of another platform cannot be had, and is not needed", "error", err)
			return nil
		}
		return err
	})
}

// perHost does n things in parallel, in their order, as many at once as may be asked of one
// host: one that makes us wait keeps nobody from the others. A failure of this machine ends
// it all, and is all that is told then.
func (c *client) perHost(ctx context.Context, n int, host func(i int) string, do func(ctx context.Context, i int) error) error {
	queues := map[string][]int{}
	for i := range n {
		queues[host(i)] = append(queues[host(i)], i)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	errs := make([]error, n)
	var all sync.WaitGroup
	for _, queue := range queues {
		all.Go(func() {
			var g errgroup.Group
			g.SetLimit(c.Jobs)
			for _, i := range queue {
				g.Go(func() error {
					if ctx.Err() == nil {
						errs[i] = do(ctx, i)
					}
					if local := asLocal(errs[i]); local != nil {
						cancel(local)
					}
					return nil
				})
			}
			g.Wait() // errs has what failed
		})
	}
	all.Wait()
	if local := asLocal(context.Cause(ctx)); local != nil {
		return local
	}
	return errors.Join(errs...)
}
