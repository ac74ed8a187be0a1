package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"atoll/bundle"
	sourcetree "atoll/bundle/source"
)

// CheckSources says whether every name in the options is known: that of one of the
// sources or, as a place, k3s.
func CheckSources(o *Options, sources []bundle.Source) error {
	if o == nil {
		return nil
	}
	var names []string
	for _, src := range sources {
		names = append(names, src.Name)
	}
	slices.Sort(names)
	var errs []error
	places := append([]string{"k3s"}, names...)
	for _, name := range slices.Sorted(maps.Keys(o.Sources)) {
		if !slices.Contains(places, name) {
			errs = append(errs, fmt.Errorf("source %q is not known: there is %s", name, strings.Join(places, ", ")))
		}
	}
	for _, name := range o.AllowModified {
		if len(names) == 0 {
			errs = append(errs, fmt.Errorf("source %q cannot be allowed to be modified: the stack has no sources", name))
		} else if !slices.Contains(names, name) {
			errs = append(errs, fmt.Errorf("source %q cannot be allowed to be modified: the stack has %s", name, strings.Join(names, ", ")))
		}
	}
	return errors.Join(errs...)
}

// FetchSources reads the stack's sources, from the places of the options or else from
// their URLs, puts them into the store and locks them. One that is not what the stack
// names is an error, unless the options allow it; where the stack states no hash, one that
// is not what the lock before had. What that had and the store still has is not fetched
// again. Whatever fails is told at once, in one joined error.
func FetchSources(ctx context.Context, d *bundle.Definition, sources []bundle.Source, before []bundle.LockedSource, s *bundle.Store, o *Options) ([]bundle.LockedSource, error) {
	c, err := newSourceClient(o, sources)
	if err != nil {
		return nil, err
	}
	locked := make([]bundle.LockedSource, len(sources))
	err = c.each(ctx, len(sources), func(i int) (err error) {
		locked[i], err = c.lock(ctx, sources[i], before, s)
		return err
	})
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if err != nil {
		return nil, fmt.Errorf("sources of stack %s: %w", d.Stack, err)
	}
	return locked, nil
}

// MirrorSources reads those of the lock's sources that the store does not have, as
// [FetchSources] does. One that is not as it was locked is a [bundle.CorruptError], one
// that its URL no longer has a [GoneError]. Failures do not keep the rest from being
// fetched; they come in one [IncompleteError].
func MirrorSources(ctx context.Context, sources []bundle.Source, l *bundle.Lock, s *bundle.Store, o *Options) error {
	c, err := newSourceClient(o, sources)
	if err != nil {
		return err
	}
	if c.Verify {
		s = s.Rehashing()
	}
	err = c.each(ctx, len(l.Sources), func(i int) error {
		locked := l.Sources[i]
		if have, err := s.Has(ctx, locked.Digest, locked.Size); have || err != nil {
			return err
		}
		at := slices.IndexFunc(sources, func(src bundle.Source) bool { return src.Name == locked.Name })
		if at < 0 {
			return fmt.Errorf("source %s of the lock is none of the stack: %w", locked.Name, bundle.ErrStale)
		}
		if err := c.mirror(ctx, sources[at], locked, s); err != nil {
			return &FetchError{Names: []string{"source " + locked.Name}, Host: toldHost(err), Err: err}
		}
		return nil
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return &IncompleteError{Left: -1, Err: err}
	}
	return nil
}

// OpenSource reads a locked source from the store. One that is not there is
// [bundle.ErrIncomplete], one that is not what its digest says a [bundle.CorruptError].
func OpenSource(s *bundle.Store, l bundle.LockedSource) (*sourcetree.Tree, error) {
	f, err := s.Open(l.Digest)
	if isNotExist(err) {
		return nil, fmt.Errorf("source %s is not in the store: %w", l.Name, bundle.ErrIncomplete)
	}
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", l.Name, err)
	}
	defer f.Close()
	sum := sha256.New()
	r := io.TeeReader(f, sum)
	var tree *sourcetree.Tree
	if l.Tree == "" {
		tree, err = readFile(l.URL, r)
	} else {
		tree, err = sourcetree.Open(r)
	}
	if _, err := io.Copy(sum, f); err != nil { // what is left
		return nil, fmt.Errorf("source %s: %w", l.Name, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != l.Digest.Hex {
		corrupt := &bundle.CorruptError{Name: "source " + l.Name + " at " + s.Path(l.Digest), Want: l.Digest, Got: v1.Hash{Algorithm: "sha256", Hex: got}}
		// Has removes it, whatever is on record, so that the next mirror fetches it.
		_, err := s.Rehashing().Has(context.Background(), l.Digest, l.Size)
		return nil, errors.Join(corrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", l.Name, err)
	}
	return tree, nil
}

// ReadSource reads a source from its place in the options, with no network and no
// store. One that is not what the stack names is an error, unless the options allow it.
func ReadSource(src bundle.Source, o *Options) (*sourcetree.Tree, error) {
	o = o.withDefaults()
	place := o.Sources[src.Name]
	tree, err := readPlace(src, place)
	if err != nil {
		return nil, err
	}
	if _, err := o.checkSource(src, tree, place); err != nil {
		return nil, err
	}
	return tree, nil
}

// sourceClient is a client that knows the places of a stack's sources.
type sourceClient struct {
	*client
	places map[string]string
}

func newSourceClient(o *Options, sources []bundle.Source) (*sourceClient, error) {
	if err := CheckSources(o, sources); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	places := o.Sources
	o.Sources = nil // of these the client knows k3s only
	c, err := newClient(o)
	return &sourceClient{c, places}, err
}

// each calls f with 0 to n-1, in parallel, and joins what fails.
func (c *sourceClient) each(ctx context.Context, n int, f func(i int) error) error {
	errs := make([]error, n)
	var g errgroup.Group
	g.SetLimit(c.Jobs)
	for i := range n {
		g.Go(func() error {
			if errs[i] = context.Cause(ctx); errs[i] == nil {
				errs[i] = f(i)
			}
			return nil
		})
	}
	return errors.Join(g.Wait(), errors.Join(errs...))
}

// lock reads a source as it is today.
func (c *sourceClient) lock(ctx context.Context, src bundle.Source, before []bundle.LockedSource, s *bundle.Store) (bundle.LockedSource, error) {
	var old bundle.LockedSource
	i := slices.IndexFunc(before, func(l bundle.LockedSource) bool { return l.Name == src.Name && l.URL == src.Archive() && !l.Modified })
	if i >= 0 {
		old = before[i]
		if c.places[src.Name] == "" && (src.Tree == "" || src.Tree == old.Tree) && (src.SHA256 == "" || src.SHA256 == old.Digest.Hex) {
			if have, err := s.Has(ctx, old.Digest, old.Size); have || err != nil {
				old.FirstSight = !src.Stated()
				return old, err
			}
		}
	}
	tree, place, err := c.read(ctx, src, v1.Hash{Algorithm: "sha256", Hex: strings.ToLower(src.SHA256)})
	if err != nil {
		return bundle.LockedSource{}, err
	}
	l := bundle.LockedSource{Name: src.Name, URL: src.Archive(), FirstSight: !src.Stated()}
	if l.Modified, err = c.checkSource(src, tree, place); err != nil {
		return bundle.LockedSource{}, err
	}
	if src.URL == "" {
		l.Tree = tree.Hash()
	}
	data, err := stored(src, tree)
	if err != nil {
		return bundle.LockedSource{}, fmt.Errorf("source %s: %w", src.Name, err)
	}
	l.Size = int64(len(data))
	if l.Digest, err = s.PutBytes(ctx, data); err != nil {
		return bundle.LockedSource{}, fmt.Errorf("source %s: %w", src.Name, err)
	}
	if i >= 0 && src.Tree == "" && src.SHA256 == "" && l.Digest != old.Digest {
		if !slices.Contains(c.AllowModified, src.Name) {
			return bundle.LockedSource{}, fmt.Errorf("source %s from %s has digest %s, it was locked with %s (--allow-modified %s takes it as it is)",
				src.Name, place, l.Digest, old.Digest, src.Name)
		}
		l.Modified = c.places[src.Name] != ""
	}
	return l, nil
}

// mirror reads a source that is locked.
func (c *sourceClient) mirror(ctx context.Context, src bundle.Source, l bundle.LockedSource, s *bundle.Store) error {
	if l.Modified && c.places[src.Name] == "" {
		return fmt.Errorf("source %s was locked with changes that %s does not have: give the modified one by --source %s=PATH", l.Name, l.URL, l.Name)
	}
	tree, place, err := c.read(ctx, src, l.Digest)
	var damage damageError
	switch {
	case notFound(err):
		return withPlace(&GoneError{Name: "source " + l.Name, Digest: l.Digest, Host: place}, src)
	case errors.As(err, &damage):
		return withPlace(&bundle.CorruptError{Name: "source " + l.Name + " from " + place, Want: l.Digest, Err: damage.error}, src)
	case err != nil:
		return err
	}
	data, err := stored(src, tree)
	if err != nil {
		return fmt.Errorf("source %s: %w", l.Name, err)
	}
	got := bundle.DigestOf(data)
	if got != l.Digest {
		err := error(&bundle.CorruptError{Name: "source " + l.Name + " from " + place, Want: l.Digest, Got: got})
		if src.URL == "" {
			err = fmt.Errorf("%w; its git tree is %s, the locked one %s", err, tree.Hash(), l.Tree)
		}
		if l.Modified {
			return fmt.Errorf("%w (it was locked with changes: give the modified one by --source %s=PATH)", err, l.Name)
		}
		return withPlace(err, src)
	}
	if err := s.Put(ctx, l.Digest, l.Size, bytes.NewReader(data)); err != nil {
		return fmt.Errorf("source %s: %w", l.Name, err)
	}
	return nil
}

// withPlace adds to an error what the user can do.
func withPlace(err error, src bundle.Source) error {
	return fmt.Errorf("%w (from %s; another place is given by --source %s=PATH)", err, src.Archive(), src.Name)
}

// stored is what the store keeps of a source.
func stored(src bundle.Source, tree *sourcetree.Tree) ([]byte, error) {
	if src.URL == "" {
		return tree.Pack()
	}
	return onlyFile(tree), nil
}

func onlyFile(tree *sourcetree.Tree) (data []byte) {
	for _, data = range tree.Files() {
	}
	return data
}

// checkSource holds a source against what the stack says of it. It tells whether it is
// another one that the options allow.
func (o *Options) checkSource(src bundle.Source, tree *sourcetree.Tree, place string) (modified bool, err error) {
	kind, got, want := "git tree", tree.Hash(), src.Tree
	if src.URL != "" {
		kind, got, want = "sha256", bundle.DigestOf(onlyFile(tree)).Hex, src.SHA256
	}
	if want == "" || strings.EqualFold(got, want) {
		return false, nil
	}
	if slices.Contains(o.AllowModified, src.Name) {
		return true, nil
	}
	return false, fmt.Errorf("source %s from %s has %s %s, the stack wants %s (another place is given by --source %s=PATH; --allow-modified %s takes it as it is)",
		src.Name, place, kind, got, want, src.Name, src.Name)
}
