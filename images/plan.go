package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"atoll/bundle"
)

// addImages asks for the blobs of all images. Manifests are fetched at once: they
// say what the blobs are.
func (m *mirror) addImages(ctx context.Context, locked []bundle.LockedImage) error {
	// One image under several names is read once, from the first that has it.
	byDigest := map[v1.Hash][]bundle.LockedImage{}
	var order []v1.Hash
	for _, im := range locked {
		if byDigest[im.Digest] == nil {
			order = append(order, im.Digest)
		}
		byDigest[im.Digest] = append(byDigest[im.Digest], im)
	}
	errs := make([]error, len(order))
	var g errgroup.Group
	g.SetLimit(m.Jobs)
	for i, digest := range order {
		g.Go(func() error {
			errs[i] = m.addImage(ctx, byDigest[digest])
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return errors.Join(errs...)
}

// addImage asks for an image that goes by one or more names.
func (m *mirror) addImage(ctx context.Context, names []bundle.LockedImage) error {
	p := &planner{mirror: m, image: names[0]}
	for _, im := range names {
		repo, err := m.repository(cmp.Or(im.From, im.Reference))
		if err != nil {
			return err
		}
		if !slices.Contains(p.repos, repo) {
			p.repos = append(p.repos, repo)
		}
		p.names = append(p.names, imageName(im.Reference, im.From))
	}
	had, err := m.store.Has(ctx, p.image.Digest, -1)
	if err != nil {
		return err
	}
	err = p.visit(ctx, p.image.Digest, 0)
	if !had && ctx.Err() == nil {
		m.tellMoved(ctx, names)
	}
	if err != nil {
		return err
	}
	if !p.whole {
		return fmt.Errorf("image %s: index %s does not list manifest %s of the lock: run \"atoll lock\"", p.image.Reference, p.image.Digest, p.image.Manifest)
	}
	return nil
}

// tellMoved tells of tags that point at something else than they did for the lock. What
// is fetched is what the lock says.
func (m *mirror) tellMoved(ctx context.Context, names []bundle.LockedImage) {
	for _, im := range names {
		from := cmp.Or(im.From, im.Reference)
		_, _, tag, pinned, err := bundle.SplitReference(from)
		if err != nil || tag == "" || pinned != "" {
			continue
		}
		repo, err := m.repository(from)
		if err != nil {
			continue
		}
		if now := repo.tagged(ctx, tag); now != (v1.Hash{}) && now != im.Digest {
			m.Log.Warn("tag has moved since the lock was made; the digest of the lock counts", "image", from, "locked", im.Digest, "now", now)
		}
	}
}

// planner walks one image.
type planner struct {
	*mirror
	image bundle.LockedImage
	names []string      // of the image, for errors
	repos []*repository // that have the image
	asked int           // manifests
	whole bool          // the locked manifest was met
}

// visit reads a manifest or index and asks for what belongs to it.
func (p *planner) visit(ctx context.Context, digest v1.Hash, depth int) error {
	if p.asked++; p.asked > maxManifests {
		return fmt.Errorf("image %s has more than %d manifests", p.image.Reference, maxManifests)
	}
	data, err := p.load(ctx, digest)
	if err != nil {
		return err
	}
	n, err := parseNode(data)
	if err != nil {
		return malformedError{fmt.Errorf("image %s: %s: %w", p.image.Reference, digest, err)}
	}
	if !n.isIndex() {
		return p.manifest(digest, n)
	}
	if depth == maxNesting {
		return fmt.Errorf("image %s has more than %d indexes in each other", p.image.Reference, maxNesting)
	}
	for _, child := range n.Manifests {
		wanted := child.Digest == p.image.Manifest
		if !wanted && (!child.MediaType.IsImage() && !child.MediaType.IsIndex() || isAttestation(child)) {
			continue
		}
		var gone *GoneError
		var malformed malformedError
		err := p.visit(ctx, child.Digest, depth+1)
		if errors.As(err, &gone) && !wanted && gone.Digest == child.Digest {
			// Registries that copy one platform of an image lack the others; so do we.
			p.Log.Warn("registry lacks another platform of an image", "image", p.image.Reference, "host", gone.Host, "digest", child.Digest)
			continue
		}
		if errors.As(err, &malformed) && !wanted {
			p.Log.Warn("another platform of an image is malformed", "error", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// manifest asks for a manifest's config and, if it is the one that will run, its layers.
func (p *planner) manifest(digest v1.Hash, n *node) error {
	wanted := n.blobs()
	if digest != p.image.Manifest {
		if n.Config.Digest.Algorithm == "sha256" && n.Config.Size <= maxManifest {
			p.ask(n.Config)
		}
		return nil
	}
	p.whole = true
	if err := n.check(); err != nil {
		return fmt.Errorf("image %s: %s: %w", p.image.Reference, digest, err)
	}
	for _, b := range wanted {
		p.ask(b)
	}
	return nil
}

// malformedError says that a manifest cannot be read.
type malformedError struct{ error }

// ask asks for a blob. A foreign layer may be at its own URLs only.
func (p *planner) ask(b v1.Descriptor) {
	d := download{name: p.names[0], also: slices.Clip(p.names[1:]), digest: b.Digest, size: b.Size}
	for _, r := range p.repos {
		d.sources = append(d.sources, r.blob(b.Digest))
	}
	if !b.MediaType.IsDistributable() {
		d.name += ", a layer that is not in the registry but at a URL of its own"
		for _, u := range b.URLs {
			if to, err := url.Parse(u); err == nil && mayFollow(p.repos[0].door.base, to) == nil {
				d.sources = append(d.sources, p.plainSource(u))
			}
		}
	}
	p.add(d)
}

// load gives a manifest's bytes: the store's, or a registry's, which the store then has.
func (p *planner) load(ctx context.Context, digest v1.Hash) ([]byte, error) {
	have, err := p.store.Has(ctx, digest, -1)
	if err != nil {
		return nil, err
	}
	if have {
		return readManifest(p.store, digest)
	}
	name := p.names[0]
	var errs []error
	for _, r := range p.repos {
		data, err := r.manifest(ctx, "", digest)
		if err == nil {
			_, err = p.store.PutBytes(ctx, data)
			return data, err
		}
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		var corrupt *bundle.CorruptError
		switch {
		case notFound(err):
			err = &GoneError{Name: name, Digest: digest, Host: r.host}
		case errors.As(err, &corrupt):
			err = &bundle.CorruptError{Name: name + " from " + r.host, Want: digest, Got: corrupt.Got, Err: corrupt.Err}
		default:
			err = explain(err, name, r.host)
		}
		errs = append(errs, &FetchError{Names: p.names, Host: r.host, Err: err})
	}
	return nil, worst(errs)
}

// readManifest reads a manifest that the store has.
func readManifest(s *bundle.Store, digest v1.Hash) ([]byte, error) {
	f, err := s.Open(digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("reading manifest: %w", err)
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("manifest %s is larger than %d bytes", digest, maxManifest)
	}
	return data, nil
}
