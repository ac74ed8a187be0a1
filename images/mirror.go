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
// fetched whole; of other platforms only manifest and config, if the registry has
// them. Failures do not keep the rest from being fetched; they come in one
// [IncompleteError], with a [GoneError] or [bundle.CorruptError] where that is the reason.
func Mirror(ctx context.Context, d *bundle.Definition, l *bundle.Lock, s *bundle.Store, o *Options) error {
	c, err := newClient(o)
	if err != nil {
		return err
	}
	if c.Verify {
		s = s.Rehashing()
	}
	m := &mirror{client: c, store: s, downloads: map[v1.Hash][]*download{}}
	errs := []error{m.addImages(ctx, l.Images)}
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
	store *bundle.Store

	mu        sync.Mutex
	downloads map[v1.Hash][]*download // of one digest several only if some lie about its size
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
	have := make([]bool, len(all))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(m.Jobs)
	for i, d := range all {
		g.Go(func() (err error) {
			have[i], err = m.store.Has(ctx, d.digest, d.size)
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

// fetchAll fetches in parallel. A failure of this machine ends it all; any other
// is told after the rest is done.
func (m *mirror) fetchAll(ctx context.Context, list []*download, t *tally) error {
	defer t.watch()()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(m.Jobs)
	errs := make([]error, len(list))
	for i, d := range list {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			tr := t.begin(d)
			errs[i] = m.fetch(gctx, m.store, d, tr)
			t.end(tr, errs[i])
			var local localError
			if errors.As(errs[i], &local) {
				return local
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err // the others were cut off by it
	}
	return errors.Join(errs...)
}
