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
	"net/url"
	"os"
	"path"
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
// names is an error, unless the options allow it. Whatever fails is told at once, in one
// joined error.
func FetchSources(ctx context.Context, d *bundle.Definition, sources []bundle.Source, s *bundle.Store, o *Options) ([]bundle.LockedSource, error) {
	c, err := newSourceClient(o, sources)
	if err != nil {
		return nil, err
	}
	locked := make([]bundle.LockedSource, len(sources))
	err = c.each(ctx, len(sources), func(i int) (err error) {
		locked[i], err = c.lock(ctx, sources[i], s)
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
// fetched; they come in one joined error that wraps [bundle.ErrIncomplete].
func MirrorSources(ctx context.Context, sources []bundle.Source, l *bundle.Lock, s *bundle.Store, o *Options) error {
	c, err := newSourceClient(o, sources)
	if err != nil {
		return err
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
		return c.mirror(ctx, sources[at], locked, s)
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return errors.Join(err, fmt.Errorf("mirror is %w: what could be fetched is kept", bundle.ErrIncomplete))
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
		return nil, &bundle.CorruptError{Name: "source " + l.Name + " at " + s.Path(l.Digest), Want: l.Digest, Got: v1.Hash{Algorithm: "sha256", Hex: got}}
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
func (c *sourceClient) lock(ctx context.Context, src bundle.Source, s *bundle.Store) (bundle.LockedSource, error) {
	tree, place, err := c.read(ctx, src, v1.Hash{Algorithm: "sha256", Hex: strings.ToLower(src.SHA256)})
	if err != nil {
		return bundle.LockedSource{}, err
	}
	l := bundle.LockedSource{Name: src.Name, URL: src.Archive()}
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

// damageError says that content came cut or corrupt, again and again.
type damageError struct{ error }

func (e damageError) Unwrap() error { return e.error }

// read reads a source and tells who had it: a place on disk or a host. Of a file, bytes
// of another digest than want are asked for again; they may be the connection's fault.
func (c *sourceClient) read(ctx context.Context, src bundle.Source, want v1.Hash) (tree *sourcetree.Tree, place string, err error) {
	if place := c.places[src.Name]; place != "" {
		tree, err := readPlace(src, place)
		return tree, place, err
	}
	from, err := c.upstream(src)
	if err != nil {
		return nil, "", err
	}
	for try := 1; try <= bodyTries; try++ {
		r := c.stream(ctx, from, -1)
		tree, err = readBody(src, r)
		r.Close()
		switch {
		case ctx.Err() != nil:
			return nil, from.host, context.Cause(ctx)
		case errors.Is(r.err, io.ErrUnexpectedEOF):
			err = damageError{fmt.Errorf("cut short at %d bytes, again and again: %w", r.offset, r.err)}
			return nil, from.host, withPlace(explain(err, "source "+src.Name, from.host), src)
		case r.err != nil:
			return nil, from.host, withPlace(explain(r.err, "source "+src.Name, from.host), src)
		case errors.Is(err, sourcetree.ErrRefused):
			return nil, from.host, withPlace(explain(err, "source "+src.Name, from.host), src)
		case err == nil && (src.URL == "" || want.Hex == "" || try == bodyTries || bundle.DigestOf(onlyFile(tree)) == want):
			return tree, from.host, nil
		}
		c.Log.Warn("content is corrupt, fetching it again", "name", "source "+src.Name, "host", from.host)
	}
	return nil, from.host, withPlace(explain(damageError{err}, "source "+src.Name, from.host), src)
}

// upstream is where a source's URL, or the mirror of its host, has it.
func (c *sourceClient) upstream(src bundle.Source) (source, error) {
	u, err := url.Parse(src.Archive())
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return source{}, fmt.Errorf("source %s: %q is not a URL like https://HOST/PATH", src.Name, src.Archive())
	}
	if m := c.mirrors[u.Host]; m != nil {
		to := m.JoinPath(u.EscapedPath())
		to.RawQuery = u.RawQuery
		u = to
	}
	return c.plainSource(u.String()), nil
}

// readPlace reads a source on disk.
func readPlace(src bundle.Source, place string) (*sourcetree.Tree, error) {
	info, err := os.Stat(place)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", src.Name, err)
	}
	var tree *sourcetree.Tree
	switch {
	case info.IsDir() && src.URL != "":
		err = errors.New("it is a folder, not a file")
	case info.IsDir():
		tree, err = sourcetree.ReadFolder(place, src.Path)
	case !info.Mode().IsRegular():
		err = errors.New("it is neither a folder nor a file")
	default:
		tree, err = readPlaceFile(src, place)
	}
	if err != nil {
		return nil, fmt.Errorf("source %s from %s: %w", src.Name, place, err)
	}
	return tree, nil
}

func readPlaceFile(src bundle.Source, place string) (*sourcetree.Tree, error) {
	f, err := os.Open(place)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBody(src, f)
}

// readBody reads a source from what its URL gives.
func readBody(src bundle.Source, r io.Reader) (*sourcetree.Tree, error) {
	if src.URL == "" {
		return sourcetree.ReadArchive(r, src.Path)
	}
	return readFile(src.URL, r)
}

// readFile reads the file of a URL. The tree has it by the URL's last part.
func readFile(from string, r io.Reader) (*sourcetree.Tree, error) {
	u, err := url.Parse(from)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, sourcetree.MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > sourcetree.MaxFile {
		return nil, fmt.Errorf("%w: it has more than %d MiB", sourcetree.ErrRefused, sourcetree.MaxFile>>20)
	}
	return sourcetree.FromFile(path.Base(u.Path), data), nil
}
