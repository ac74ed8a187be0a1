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
	"golang.org/x/sync/errgroup"

	"atoll/bundle"
)

// Resolve makes the lock of a definition: each wanted image by digest, the files
// of the k3s release by checksum, and the Debian packages with all that they need.
// manifests is the digest of the stack's rendered plan. Whatever fails is told at
// once, in one joined error.
func Resolve(ctx context.Context, d *bundle.Definition, wanted []Wanted, manifests v1.Hash, packages []string, o *Options) (*bundle.Lock, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
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
	errs := make([]error, len(wanted))
	var g errgroup.Group
	g.SetLimit(c.Jobs)
	for i, w := range wanted {
		g.Go(func() error {
			locked[i], errs[i] = c.resolveImage(ctx, w, arch)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return locked, errors.Join(errs...)
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
	manifest, size, err := r.platform(ctx, data, 0)
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
		Reference: w.Reference, From: w.From, Digest: bundle.DigestOf(data), Manifest: manifest,
		Size: size, Tier: w.Tier, Where: w.Where,
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

// platformError says that an image, or a part of its index, is for other platforms.
type platformError struct{ error }

// platform gives the digest of the architecture's manifest, and the bytes of all of it.
func (r *resolver) platform(ctx context.Context, data []byte, depth int) (v1.Hash, int64, error) {
	n, err := parseNode(data)
	if err != nil {
		return v1.Hash{}, 0, err
	}
	if !n.isIndex() {
		if err := n.check(); err != nil {
			return v1.Hash{}, 0, err
		}
		if err := r.checkConfig(ctx, n); err != nil {
			return v1.Hash{}, 0, err
		}
		return bundle.DigestOf(data), n.size(len(data)), nil
	}
	if depth == maxNesting {
		return v1.Hash{}, 0, fmt.Errorf("more than %d indexes in each other", maxNesting)
	}
	for _, child := range choose(n.Manifests, r.arch) {
		manifest, size, err := r.child(ctx, child, depth)
		var other platformError
		if !errors.As(err, &other) {
			return manifest, size, err
		}
	}
	return v1.Hash{}, 0, platformError{fmt.Errorf("image is not for linux/%s; its platforms: %s", r.arch, platforms(n.Manifests))}
}

func (r *resolver) child(ctx context.Context, d v1.Descriptor, depth int) (v1.Hash, int64, error) {
	if r.asked++; r.asked > maxManifests {
		return v1.Hash{}, 0, fmt.Errorf("more than %d manifests were asked for", maxManifests)
	}
	data, err := r.repo.manifest(ctx, "", d.Digest)
	if err != nil {
		return v1.Hash{}, 0, fmt.Errorf("manifest %s of its index: %w", d.Digest, err)
	}
	manifest, size, err := r.platform(ctx, data, depth+1)
	if err == nil && d.Size != int64(len(data)) {
		return v1.Hash{}, 0, fmt.Errorf("its index says that manifest %s has %d bytes, it has %d: no container runtime pulls it by that index; push the image again, or pin the manifest's digest", d.Digest, d.Size, len(data))
	}
	return manifest, size, err
}

// checkConfig refuses an image that another platform runs. One that does not say passes,
// and what is no image runs nowhere.
func (r *resolver) checkConfig(ctx context.Context, n *node) error {
	if n.isArtifact() {
		return nil
	}
	data, err := r.repo.config(ctx, n.Config.Digest)
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
