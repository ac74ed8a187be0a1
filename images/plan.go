package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
	"atoll/bundle/bounds"
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
	plans := make([]*planner, len(order))
	host := func(i int) string {
		im := byDigest[order[i]][0]
		return m.hostOf(cmp.Or(im.From, im.Reference))
	}
	read, stop := m.reading(len(locked))
	err := m.perHost(ctx, len(order), host, func(ctx context.Context, i int) (err error) {
		names := byDigest[order[i]]
		plans[i], err = m.plan(ctx, names)
		read(len(names))
		return err
	})
	stop()
	if asLocal(err) != nil {
		return err
	}
	// A registry may answer only so many requests: what is needed comes first, of all images.
	plans = slices.DeleteFunc(plans, func(p *planner) bool { return p == nil || len(p.others) == 0 })
	if len(plans) == 0 {
		return err
	}
	read, stop = m.reading(len(plans))
	defer stop()
	more := m.perHost(ctx, len(plans), func(i int) string { return plans[i].repos[0].host }, func(ctx context.Context, i int) error {
		defer read(1)
		return plans[i].addOthers(context.WithValue(ctx, spareRequest{}, true))
	})
	return errors.Join(err, more)
}

// asLocal gives the failure of this machine that err is; nil if it is none.
func asLocal(err error) error {
	var local localError
	if errors.As(err, &local) {
		return err
	}
	return nil
}

// plan asks for what is needed of an image that goes by one or more names.
func (m *mirror) plan(ctx context.Context, names []bundle.LockedImage) (*planner, error) {
	p := &planner{mirror: m, image: names[0]}
	for _, im := range names {
		repo, err := m.repository(cmp.Or(im.From, im.Reference))
		if err != nil {
			return nil, err
		}
		if !slices.Contains(p.repos, repo) {
			p.repos = append(p.repos, repo)
		}
		p.names = append(p.names, imageName(im.Reference, im.From))
	}
	err := p.visit(ctx, v1.Descriptor{Digest: p.image.Digest}, 0)
	if p.lacks && ctx.Err() == nil && asLocal(err) == nil {
		m.tellMoved(ctx, names)
	}
	if err != nil {
		return nil, err
	}
	if !p.whole {
		return nil, fmt.Errorf("image %s: index %s does not list manifest %s of the lock: run \"atoll lock\"", p.image.Reference, p.image.Digest, p.image.Manifest)
	}
	return p, nil
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
	lacks bool          // the store lacks something of it

	others []v1.Descriptor // manifests of other platforms, not read yet
}

// visit reads a manifest or index and asks for what belongs to it.
func (p *planner) visit(ctx context.Context, d v1.Descriptor, depth int) error {
	if p.asked++; p.asked > bounds.ImageManifests {
		return fmt.Errorf("%s has more than %d manifests", p.names[0], bounds.ImageManifests)
	}
	data, err := p.load(ctx, d)
	if err != nil {
		return err
	}
	n, err := parseNode(data)
	if err != nil {
		return malformedError{fmt.Errorf("%s: %s: %w", p.names[0], d.Digest, err)}
	}
	if !n.isIndex() {
		return p.manifest(ctx, d.Digest, n)
	}
	if depth == maxNesting {
		return fmt.Errorf("%s has more than %d indexes in each other", p.names[0], maxNesting)
	}
	for _, child := range n.Manifests {
		wanted := child.Digest == p.image.Manifest
		switch {
		case isAttestation(child) && !wanted:
		case wanted || child.MediaType.IsIndex():
			err = p.visit(ctx, child, depth+1)
			if !wanted && p.passOver(err) {
				err = nil
			}
			if err != nil {
				return err
			}
		case child.MediaType.IsImage():
			p.others = append(p.others, child)
		}
	}
	return nil
}

// addOthers asks for the manifests and configs of other platforms. They are good to have:
// some programs read all that an index lists. Nobody waits for them in vain: a host that
// does not give one is asked for no more.
func (p *planner) addOthers(ctx context.Context) error {
	for _, other := range p.others {
		if _, spared := p.spared.Load(p.repos[0].host); spared {
			return nil
		}
		err := p.visit(ctx, other, 1)
		var failed *FetchError
		switch {
		case err == nil || p.passOver(err):
		case ctx.Err() != nil || !errors.As(err, &failed):
			return err
		default:
			if _, told := p.spared.LoadOrStore(p.repos[0].host, true); !told {
				p.Log.Warn("registry does not give manifests of other platforms, which are not needed", "host", p.repos[0].host, "image", p.image.Reference, "error", err)
			}
		}
	}
	return nil
}

// passOver tells of a part of an index that can be done without, and is gone or malformed.
// Registries that copy one platform of an image lack the others; so do we.
func (p *planner) passOver(err error) bool {
	var gone *GoneError
	var malformed malformedError
	switch {
	case errors.As(err, &malformed):
		p.Log.Warn("another platform of an image is malformed", "error", err)
	case errors.As(err, &gone) && gone.Digest != p.image.Manifest:
		p.Log.Warn("registry lacks another platform of an image", "image", p.image.Reference, "host", gone.Host, "digest", gone.Digest)
	default:
		return false
	}
	return true
}

// manifest asks for a manifest's config and, if it is the one that will run, its layers.
func (p *planner) manifest(ctx context.Context, digest v1.Hash, n *node) error {
	if digest != p.image.Manifest {
		if checkBlob(n.Config) == nil && n.Config.Size <= bounds.Manifest {
			return p.ask(ctx, n.Config, true)
		}
		return nil
	}
	p.whole = true
	if err := n.check(); err != nil {
		return fmt.Errorf("%s: %s: %w", p.names[0], digest, err)
	}
	for _, b := range n.blobs() {
		if err := p.ask(ctx, b, false); err != nil {
			return err
		}
	}
	return nil
}

// malformedError says that a manifest cannot be read.
type malformedError struct{ error }

// ask asks for a blob, if its descriptor does not carry it along. A foreign layer may be at
// its own URLs only.
func (p *planner) ask(ctx context.Context, b v1.Descriptor, spare bool) error {
	if data, ok := inline(b); ok {
		return p.local(p.keep(ctx, data))
	}
	if !spare {
		have, err := p.store.Has(ctx, b.Digest, b.Size)
		if err != nil {
			return p.local(err)
		}
		p.lacks = p.lacks || !have
	}
	d := download{name: p.names[0], spare: spare, also: slices.Clip(p.names[1:]), digest: b.Digest, size: b.Size}
	for _, r := range p.repos {
		d.sources = append(d.sources, r.blob(b.Digest))
	}
	switch {
	case isForeign(b) && len(b.URLs) == 0:
		d.name += ", a layer that is not in the registry, and its manifest has no URL of it"
	case isForeign(b):
		d.name += ", a layer that is not in the registry but at a URL of its own"
	}
	for _, u := range b.URLs {
		d.sources = append(d.sources, p.foreignSource(u))
	}
	p.add(d)
	return nil
}

// foreignSource is a URL that a manifest gives of a layer. One that must not be asked tells
// why, in place of what it has.
func (p *planner) foreignSource(u string) source {
	to, err := url.Parse(u)
	if err != nil {
		return refusedSource(fmt.Sprintf("%q", u), errors.New("it is no URL"))
	}
	if err := mayFollow(p.repos[0].door.base, to); err != nil {
		shown := url.URL{Scheme: to.Scheme, Host: to.Host, Path: to.Path} // the rest may be secret
		return refusedSource(shown.String(), err)
	}
	return p.plainSource(u)
}

func refusedSource(u string, why error) source {
	return source{host: u, url: u, http: func(context.Context) (*http.Client, error) {
		return nil, fmt.Errorf("this URL of its manifest is not asked: %w", why)
	}}
}

// local names the image in a failure of this machine.
func (p *planner) local(err error) error {
	if err == nil {
		return nil
	}
	return localError{fmt.Errorf("%s: %w", p.names[0], err)}
}

// load gives a manifest's bytes: the store's, its descriptor's, or a registry's, which the
// store then has.
func (p *planner) load(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	data, err := p.stored(ctx, d)
	var malformed malformedError
	switch {
	case errors.As(err, &malformed):
		return nil, malformedError{fmt.Errorf("%s: %s: %w", p.names[0], d.Digest, err)}
	case data != nil || err != nil:
		return data, p.local(err)
	}
	p.lacks = true
	name := p.names[0]
	var errs []error
	for _, r := range p.repos {
		data, err := r.manifest(ctx, "", d.Digest)
		if err == nil {
			return data, p.local(p.keep(ctx, data))
		}
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		var corrupt *bundle.CorruptError
		switch {
		case notFound(err):
			err = &GoneError{Name: name, Digest: d.Digest, Host: r.host}
		case errors.As(err, &corrupt):
			err = &bundle.CorruptError{Name: name + " from " + r.host, Want: d.Digest, Got: corrupt.Got, Err: corrupt.Err}
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
	data, err := io.ReadAll(io.LimitReader(f, bounds.Manifest+1))
	if err != nil {
		return nil, fmt.Errorf("reading manifest: %w", err)
	}
	if len(data) > bounds.Manifest {
		return nil, malformedError{fmt.Errorf("manifest is larger than %d bytes", bounds.Manifest)}
	}
	return data, nil
}
