package images

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// Resolve makes the lock of a definition: each wanted image by digest, the files
// of the k3s release by checksum, and the Debian packages with all that they need.
// manifests is the digest of the stack's rendered plan. Manifests and configs that were
// read are kept in the store, so that neither [Mirror] nor the next Resolve asks for them
// again: registries count such requests. It may be nil. Whatever fails is told at once, in
// one joined error.
func Resolve(ctx context.Context, d *bundle.Definition, wanted []Wanted, manifests v1.Hash, packages []string, s *bundle.Store, o *Options) (*bundle.Lock, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	c.store = s
	wanted, err = merge(wanted)
	if err != nil {
		return nil, err
	}
	l := &bundle.Lock{Definition: d.Checksum(), Manifests: manifests, Platform: d.Platform}
	var wg sync.WaitGroup
	var errImages, errFiles, errPackages error
	wg.Go(func() { l.Images, errImages = c.resolveImages(ctx, wanted, d.Arch()) })
	wg.Go(func() { l.Files, errFiles = c.resolveK3s(ctx, d) })
	wg.Go(func() { l.Packages, l.Epoch, errPackages = ResolvePackages(ctx, d.Base, d.Arch(), packages, o) })
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(errImages, errFiles, errPackages); err != nil {
		return nil, err
	}
	return l, nil
}

// merge makes references canonical and each one wanted once. Where one of its
// places requires it, it is required.
func merge(wanted []Wanted) ([]Wanted, error) {
	var out []Wanted
	var errs []error
	at := map[string]int{}
	for _, w := range wanted {
		ref, err := bundle.CanonicalReference(w.Reference)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		i, ok := at[ref]
		if !ok {
			at[ref] = len(out)
			out = append(out, Wanted{Reference: ref, From: w.From, Tier: w.Tier, Where: slices.Clone(w.Where)})
			continue
		}
		out[i].Where = append(out[i].Where, w.Where...)
		if w.Tier == bundle.TierRequired {
			out[i].Tier = w.Tier
		}
	}
	return out, errors.Join(errs...)
}

func (c *client) resolveImages(ctx context.Context, wanted []Wanted, arch string) ([]bundle.LockedImage, error) {
	locked := make([]bundle.LockedImage, len(wanted))
	read, stop := c.reading(len(wanted))
	defer stop()
	err := c.perHost(ctx, len(wanted), func(i int) string { return c.hostOf(cmp.Or(wanted[i].From, wanted[i].Reference)) }, func(ctx context.Context, i int) (err error) {
		locked[i], err = c.resolveImage(ctx, wanted[i], arch)
		read(1)
		return err
	})
	if err != nil {
		return nil, err
	}
	return locked, nil
}

func (c *client) resolveImage(ctx context.Context, w Wanted, arch string) (bundle.LockedImage, error) {
	from := cmp.Or(w.From, w.Reference)
	repo, err := c.repository(from)
	if err != nil {
		return bundle.LockedImage{}, err
	}
	// Where there is a tag and a digest, the digest counts; and that of the name that
	// manifests use, for by that the node asks.
	_, _, tag, pinned, err := bundle.SplitReference(from)
	if err != nil {
		return bundle.LockedImage{}, err
	}
	if _, _, _, digest, err := bundle.SplitReference(w.Reference); err != nil || digest != "" {
		pinned = digest
	}
	var digest v1.Hash
	if pinned != "" {
		if digest, err = v1.NewHash(pinned); err != nil || digest.Algorithm != "sha256" {
			return bundle.LockedImage{}, fmt.Errorf("image %s: pinned by a digest other than sha256", w.Reference)
		}
	}
	start := time.Now()
	data, err := repo.manifest(ctx, tag, digest)
	if err != nil {
		return bundle.LockedImage{}, explain(err, imageName(w.Reference, w.From), repo.host)
	}
	r := resolver{repo: repo, arch: arch}
	var is found
	if err = c.keep(ctx, data); err == nil {
		is, err = r.platform(ctx, data, 0)
	}
	if local := asLocal(err); local != nil {
		return bundle.LockedImage{}, localError{fmt.Errorf("%s: %w", imageName(w.Reference, w.From), err)}
	}
	if err != nil {
		return bundle.LockedImage{}, explain(err, imageName(w.Reference, w.From), repo.host)
	}
	if tag != "" && pinned != "" {
		if now := repo.tagged(ctx, tag); now != (v1.Hash{}) && now != bundle.DigestOf(data) {
			c.Log.Warn("tag no longer points at the digest that the image is pinned to; the digest counts",
				"image", w.Reference, "tag", tag, "now", now)
		}
	}
	c.Log.Debug("resolved image", "image", w.Reference, "digest", bundle.DigestOf(data), "took", time.Since(start))
	return bundle.LockedImage{
		Reference: w.Reference, From: w.From, Digest: bundle.DigestOf(data), Manifest: is.manifest,
		Size: is.size, Tier: w.Tier, Where: w.Where,
	}, nil
}

// imageName is what an error calls an image.
func imageName(reference, from string) string {
	if from == "" {
		return "image " + reference
	}
	return "image " + reference + " (from " + from + ")"
}

// resolver finds what an image is on one architecture.
type resolver struct {
	repo  *repository
	arch  string
	asked int // manifests
}

// keep puts what was read into the store, if there is one and it lacks it. An error is a
// [localError].
func (c *client) keep(ctx context.Context, data []byte) error {
	if c.store == nil {
		return nil
	}
	have, err := c.store.Has(ctx, bundle.DigestOf(data), int64(len(data)))
	if err == nil && !have {
		_, err = c.store.PutBytes(ctx, data)
	}
	if err != nil {
		return localError{err}
	}
	return nil
}

// stored gives a manifest or config that the store has, or that its descriptor carries
// along; nil if neither is so.
func (c *client) stored(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	if !isSHA256(d) {
		return nil, malformedError{errOtherDigest}
	}
	if data, ok := inline(d); ok {
		return data, c.keep(ctx, data)
	}
	if c.store == nil {
		return nil, nil
	}
	have, err := c.store.Has(ctx, d.Digest, -1)
	if err != nil {
		return nil, localError{err}
	}
	if !have {
		return nil, nil
	}
	return readManifest(c.store, d.Digest)
}

// kept gives a manifest or config that is stored, or gets it and keeps it.
func (c *client) kept(ctx context.Context, d v1.Descriptor, get func(context.Context, v1.Hash) ([]byte, error)) ([]byte, error) {
	data, err := c.stored(ctx, d)
	if data != nil || err != nil {
		return data, err
	}
	if data, err = get(ctx, d.Digest); err == nil {
		err = c.keep(ctx, data)
	}
	return data, err
}

// platformError says that an image, or a part of its index, is for other platforms.
type platformError struct{ error }

// found is what an image is on one architecture.
type found struct {
	manifest v1.Hash
	size     int64 // bytes of all of it
	artifact bool  // it is no image
}

// platform finds the architecture's manifest.
func (r *resolver) platform(ctx context.Context, data []byte, depth int) (found, error) {
	n, err := parseNode(data)
	if err != nil {
		return found{}, err
	}
	if n.isIndex() {
		return r.index(ctx, n, depth)
	}
	if err := n.check(); err != nil {
		return found{}, err
	}
	if err := r.checkConfig(ctx, n); err != nil {
		return found{}, err
	}
	return found{bundle.DigestOf(data), n.size(len(data)), n.isArtifact()}, nil
}

// index finds it in an index. What is about an image, like a list of what is in it, may be
// there beside it. It is what is wanted only if it is said to be for the architecture, or
// if the index has no image at all.
func (r *resolver) index(ctx context.Context, n *node, depth int) (found, error) {
	if depth == maxNesting {
		return found{}, fmt.Errorf("more than %d indexes in each other", maxNesting)
	}
	images := slices.ContainsFunc(n.Manifests, func(d v1.Descriptor) bool { return !isVague(d) && !isAttestation(d) })
	var sure, vague *found // artifacts
	for _, d := range choose(n.Manifests, r.arch) {
		is, err := r.child(ctx, d, depth)
		var other platformError
		switch {
		case errors.As(err, &other):
			images = true
		case err != nil || !is.artifact:
			return is, err
		case isVague(d):
			vague = cmp.Or(vague, &is)
		default:
			sure = cmp.Or(sure, &is)
		}
	}
	if images {
		vague = nil
	}
	if artifact := cmp.Or(sure, vague); artifact != nil {
		return *artifact, nil
	}
	return found{}, platformError{fmt.Errorf("image is not for linux/%s; its platforms: %s", r.arch, platforms(n.Manifests))}
}

func (r *resolver) child(ctx context.Context, d v1.Descriptor, depth int) (found, error) {
	if r.asked++; r.asked > bounds.ImageManifests {
		return found{}, fmt.Errorf("more than %d manifests were asked for", bounds.ImageManifests)
	}
	data, err := r.repo.c.kept(ctx, d, func(ctx context.Context, h v1.Hash) ([]byte, error) { return r.repo.manifest(ctx, "", h) })
	if err != nil {
		return found{}, fmt.Errorf("manifest %s of its index: %w", d.Digest, err)
	}
	is, err := r.platform(ctx, data, depth+1)
	if err == nil && d.Size != int64(len(data)) {
		return found{}, fmt.Errorf("its index says that manifest %s has %d bytes, it has %d: no container runtime pulls it by that index; push the image again, or pin the manifest's digest", d.Digest, d.Size, len(data))
	}
	return is, err
}

// checkConfig refuses an image that another platform runs. One that does not say passes,
// and the config of what is no image says nothing.
func (r *resolver) checkConfig(ctx context.Context, n *node) error {
	if !n.Config.MediaType.IsConfig() {
		return nil
	}
	data, err := r.repo.c.kept(ctx, n.Config, r.repo.config)
	if err != nil {
		return fmt.Errorf("config %s: %w", n.Config.Digest, err)
	}
	var config struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return fmt.Errorf("decoding config %s: %w", n.Config.Digest, err)
	}
	if config.OS != "" && config.OS != "linux" || config.Architecture != "" && config.Architecture != r.arch {
		return platformError{fmt.Errorf("image is for %s/%s, not for linux/%s", config.OS, config.Architecture, r.arch)}
	}
	return nil
}
