package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Age is the time that a collection leaves alone unless it is told another: a day.
const Age = 24 * time.Hour

// CollectOptions say what a collection takes.
type CollectOptions struct {
	// Age is how long ago something must have been pushed, or last been asked for by somebody who pushes, to be
	// taken. It must be longer than a push lasts; 0 means [Age].
	Age time.Duration
	// DryRun takes nothing.
	DryRun bool
	// Log is told what is taken. nil means nobody.
	Log *slog.Logger
}

// Collected is what a collection took, or would take.
type Collected struct {
	// Manifests counts those that no tag names, and no index that a tag names.
	Manifests int
	// Blobs counts those that no manifest names.
	Blobs int
	// Uploads counts those that were never finished.
	Uploads int
	// Bytes is the space of all that, as [Options] counts it.
	Bytes int64
}

// Collect deletes what no tag leads to from the folder of a registry, which may be serving:
// manifests without a tag, blobs without a manifest, uploads without an end. A process that dies
// over it leaves what the next collection takes. It fails, and takes nothing, if a manifest
// cannot be read.
func Collect(ctx context.Context, dir string, opts CollectOptions) (Collected, error) {
	if opts.Age == 0 {
		opts.Age = Age
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	redirectLog(opts.Log)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Collected{}, fmt.Errorf("opening the registry's folder: %w", err)
	}
	defer root.Close()
	lock, err := lockFolder(ctx, dir, true)
	if err != nil {
		return Collected{}, err
	}
	defer lock.unlock()
	c := &collector{
		store: &store{root: root, ledger: newLedger(dir, 0, 0, 0)}, opts: opts, before: time.Now().Add(-opts.Age),
		marked: map[digest.Digest]bool{},
	}
	if err := c.mark(ctx); err != nil {
		return Collected{}, fmt.Errorf("looking for what the registry needs: %w", err)
	}
	if err := c.sweep(ctx); err != nil {
		return c.done, errors.Join(fmt.Errorf("deleting what the registry does not need: %w", err), lock.collected())
	}
	if opts.DryRun {
		return c.done, nil
	}
	return c.done, lock.collected()
}

// collector is one collection.
type collector struct {
	store  *store
	opts   CollectOptions
	before time.Time // what is younger stays
	done   Collected

	marked    map[digest.Digest]bool // blobs that something needs
	manifests []oldManifest
	links     []string // of layers that no manifest of their repository names
	uploads   []string
}

// oldManifest is a manifest that nothing leads to.
type oldManifest struct {
	repo   string
	digest digest.Digest
	tags   []string // of the repository: each may have named it before
}

// mark finds what is needed, and what is not.
func (c *collector) mark(ctx context.Context) error {
	registry, err := storage.NewRegistry(ctx, c.store, storage.EnableDelete)
	if err != nil {
		return err
	}
	repos, ok := registry.(distribution.RepositoryEnumerator)
	if !ok {
		return errors.New("the storage lists no repositories")
	}
	err = repos.Enumerate(ctx, func(name string) error {
		named, err := reference.WithName(name)
		if err != nil {
			return err
		}
		repo, err := registry.Repository(ctx, named)
		if err != nil {
			return err
		}
		if err := c.markRepository(ctx, repo); err != nil {
			return fmt.Errorf("repository %s: %w", name, err)
		}
		return nil
	})
	var none driver.PathNotFoundError
	if err != nil && !errors.As(err, &none) {
		return err
	}
	return nil
}

func (c *collector) markRepository(ctx context.Context, repo distribution.Repository) error {
	name := repo.Named().Name()
	manifests, err := repo.Manifests(ctx)
	if err != nil {
		return err
	}
	tags, err := repo.Tags(ctx).All(ctx)
	if unknown := (distribution.ErrRepositoryUnknown{}); err != nil && !errors.As(err, &unknown) {
		return err
	}
	needed := map[digest.Digest]bool{} // of this repository
	for _, tag := range tags {
		d, err := repo.Tags(ctx).Get(ctx, tag)
		if unknown := (distribution.ErrTagUnknown{}); errors.As(err, &unknown) {
			continue // half deleted
		}
		if err != nil {
			return fmt.Errorf("tag %s: %w", tag, err)
		}
		if err := follow(ctx, manifests, d.Digest, needed); err != nil {
			return err
		}
	}
	revisions, err := c.linked(name, "_manifests/revisions")
	if err != nil {
		return err
	}
	for d, file := range revisions {
		if c.young(file) {
			if err := follow(ctx, manifests, d, needed); err != nil {
				return err
			}
		}
	}
	for d := range revisions {
		if !needed[d] {
			c.manifests = append(c.manifests, oldManifest{name, d, tags})
		}
	}
	layers, err := c.linked(name, "_layers")
	if err != nil {
		return err
	}
	for d, file := range layers {
		switch {
		case needed[d]:
		case c.young(file):
			needed[d] = true
		default:
			c.links = append(c.links, path.Dir(file))
		}
	}
	for d := range needed {
		c.marked[d] = true
	}
	return c.oldUploads(name)
}

// follow notes that a manifest is needed, with all that it leads to.
func follow(ctx context.Context, manifests distribution.ManifestService, d digest.Digest, needed map[digest.Digest]bool) error {
	if needed[d] {
		return nil
	}
	exists, err := manifests.Exists(ctx, d)
	if err != nil {
		return err
	}
	needed[d] = true
	if !exists {
		return nil // a blob, or an image that an index names and nobody pushed
	}
	m, err := manifests.Get(ctx, d)
	if err != nil {
		return fmt.Errorf("reading manifest %s, which can be deleted by this digest: %w", d, err)
	}
	for _, ref := range m.References() {
		if err := follow(ctx, manifests, ref.Digest, needed); err != nil {
			return err
		}
	}
	return nil
}

// linked are the files that make blobs or manifests those of a repository.
func (c *collector) linked(repo, dir string) (map[digest.Digest]string, error) {
	files := map[digest.Digest]string{}
	base := path.Join(reposDir, repo, dir)
	err := walkFiles(filepath.Join(c.store.root.Name(), base), func(name string, _ int64) {
		if parts := strings.Split(name, "/"); len(parts) == 3 && parts[2] == "link" {
			files[digest.NewDigestFromEncoded(digest.Algorithm(parts[0]), parts[1])] = path.Join(base, name)
		}
	})
	return files, err
}

// young says whether a file is too young to be deleted. What cannot be looked at is.
func (c *collector) young(name string) bool {
	info, err := c.store.root.Stat(name)
	return err != nil || info.ModTime().After(c.before)
}

// oldUploads finds the uploads of a repository that nobody goes on with.
func (c *collector) oldUploads(repo string) error {
	dir := path.Join(reposDir, repo, "_uploads")
	entries, err := fs.ReadDir(c.store.root.FS(), dir)
	for _, e := range entries {
		upload := path.Join(dir, e.Name())
		data := path.Join(upload, "data")
		if _, err := c.store.root.Stat(data); err != nil {
			data = upload // nothing was sent yet
		}
		if !c.young(data) {
			c.uploads = append(c.uploads, upload)
		}
	}
	return gone(err)
}

// sweep deletes what is not needed: first what names, then what is named, so that
// nothing names what is not there if this process ends in between.
func (c *collector) sweep(ctx context.Context) error {
	vacuum := storage.NewVacuum(ctx, c.store)
	for _, m := range c.manifests {
		c.opts.Log.Info("deleting manifest", "repository", m.repo, "digest", m.digest)
		c.done.Manifests++
		if c.opts.DryRun {
			continue
		}
		if err := vacuum.RemoveManifest(m.repo, m.digest, m.tags); err != nil {
			return err
		}
	}
	for _, dir := range append(c.links, c.uploads...) {
		if err := c.remove(ctx, dir); err != nil {
			return err
		}
	}
	c.done.Uploads = len(c.uploads)
	return c.sweepBlobs(ctx)
}

func (c *collector) sweepBlobs(ctx context.Context) error {
	var unneeded []string
	err := walkFiles(filepath.Join(c.store.root.Name(), blobsDir), func(name string, _ int64) {
		file, dir := path.Join(blobsDir, name), path.Dir(name)
		if path.Base(name) != "data" || c.young(file) {
			return
		}
		algorithm, _, _ := strings.Cut(name, "/")
		if !c.marked[digest.NewDigestFromEncoded(digest.Algorithm(algorithm), path.Base(dir))] {
			unneeded = append(unneeded, path.Dir(file))
		}
	})
	if err != nil {
		return err
	}
	for _, dir := range unneeded {
		c.opts.Log.Info("deleting blob", "digest", path.Base(dir))
		if err := c.remove(ctx, dir); err != nil {
			return err
		}
		c.done.Blobs++
	}
	return nil
}

// remove deletes a folder and counts what it had.
func (c *collector) remove(ctx context.Context, dir string) error {
	err := walkFiles(filepath.Join(c.store.root.Name(), dir), func(_ string, cost int64) { c.done.Bytes += cost })
	if err != nil || c.opts.DryRun {
		return err
	}
	return c.store.Delete(ctx, "/"+dir)
}
