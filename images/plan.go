package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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
	}
	if err := p.visit(ctx, p.image.Digest, 0); err != nil {
		return err
	}
	if !p.whole {
		return fmt.Errorf("image %s: index %s does not list manifest %s of the lock: run \"atoll lock\"", p.image.Reference, p.image.Digest, p.image.Manifest)
	}
	return nil
}

// planner walks one image.
type planner struct {
	*mirror
	image bundle.LockedImage
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
		return fmt.Errorf("image %s: %s: %w", p.image.Reference, digest, err)
	}
	if !n.isIndex() {
		return p.manifest(digest, n)
	}
	if depth == maxNesting {
		return fmt.Errorf("image %s has more than %d indexes in each other", p.image.Reference, maxNesting)
	}
	for _, child := range n.Manifests {
		if !child.MediaType.IsImage() && !child.MediaType.IsIndex() {
			continue
		}
		var gone *GoneError
		err := p.visit(ctx, child.Digest, depth+1)
		if errors.As(err, &gone) && child.Digest != p.image.Manifest && gone.Digest == child.Digest {
			// Registries that copy one platform of an image lack the others; so do we.
			p.Log.Warn("registry lacks another platform of an image", "image", p.image.Reference, "host", gone.Host, "digest", child.Digest)
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

func (p *planner) ask(b v1.Descriptor) {
	d := download{name: imageName(p.image.Reference, p.image.From), digest: b.Digest, size: b.Size}
	for _, r := range p.repos {
		d.sources = append(d.sources, r.blob(b.Digest))
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
		return p.stored(digest)
	}
	name := imageName(p.image.Reference, p.image.From)
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
		errs = append(errs, err)
	}
	return nil, worst(errs)
}

func (p *planner) stored(digest v1.Hash) ([]byte, error) {
	f, err := p.store.Open(digest)
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
