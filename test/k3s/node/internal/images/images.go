// Package images imports the archives of /var/lib/rancher/k3s/agent/images into containerd before the kubelet
// starts, as k3s does: by file name, one at a time, top folder only, and pins what it imported.
package images

import (
	"compress/bzip2"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/archive/compression"

	"atoll/test/k3s/node/internal/files"
)

// cacheName is the file that, when somebody made it, lets an unchanged archive be skipped.
const cacheName = ".cache.json"

// labels keep the kubelet's garbage collection away from what cannot be pulled again.
var labels = map[string]string{
	"io.cri-containerd.image":  "managed",
	"io.cri-containerd.pinned": "pinned",
	"io.cattle.k3s.pinned":     "pinned",
}

// entry is how the cache remembers one archive.
type entry struct {
	Size    int64     `json:"size"`
	ModTime time.Time `json:"mtime"`
}

// Import imports every archive of dir. An archive that fails is reported and does not stop the others.
func Import(ctx context.Context, client *containerd.Client, dir string, log *slog.Logger) error {
	return importDir(ctx, dir, log, func(ctx context.Context, r io.Reader) (int, error) {
		images, err := client.Import(ctx, r, containerd.WithAllPlatforms(true), containerd.WithSkipMissing(),
			containerd.WithImageLabels(labels))
		return len(images), err
	})
}

func importDir(ctx context.Context, dir string, log *slog.Logger, load func(context.Context, io.Reader) (int, error)) error {
	list, err := os.ReadDir(dir) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing images: %w", err)
	}
	cache, cached := readCache(filepath.Join(dir, cacheName))
	next := map[string]entry{}
	for _, d := range list {
		path := filepath.Join(dir, d.Name())
		info, err := os.Stat(path) // a link to a file is as good as a file
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if strings.HasSuffix(d.Name(), ".txt") {
			log.Warn("lists of images are not pulled by this stand-in", "file", path)
		}
		if !supported(d.Name()) {
			continue
		}
		now := entry{info.Size(), info.ModTime().UTC()}
		if old, ok := cache[path]; ok && cached && old == now {
			log.Info("image archive unchanged, not imported again", "file", path)
			next[path] = now
			continue
		}
		start := time.Now()
		n, err := importFile(ctx, path, load)
		if err != nil {
			log.Error("image archive not imported", "file", path, "error", err)
			continue
		}
		log.Info("imported images", "file", path, "images", n, "seconds", int(time.Since(start).Seconds()))
		next[path] = now
	}
	if !cached {
		return ctx.Err()
	}
	data, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", cacheName, err)
	}
	return errors.Join(ctx.Err(), files.WriteWhole(filepath.Join(dir, cacheName), append(data, '\n'), 0o644))
}

// readCache reports whether the cache is in use; a damaged one counts as empty.
func readCache(path string) (map[string]entry, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, false
	}
	var cache map[string]entry
	if json.Unmarshal(data, &cache) != nil {
		return nil, true
	}
	return cache, true
}

// supported tells an image archive by its name. Real k3s also reads .tar.lz4.
func supported(name string) bool {
	for _, ext := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz"} {
		if strings.HasSuffix(name, ext) && !strings.HasPrefix(name, ".") {
			return true
		}
	}
	return false
}

func importFile(ctx context.Context, path string, load func(context.Context, io.Reader) (int, error)) (n int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("opening the archive: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if strings.HasSuffix(path, ".bz2") || strings.HasSuffix(path, ".tbz") {
		return load(ctx, bzip2.NewReader(f))
	}
	r, err := compression.DecompressStream(f)
	if err != nil {
		return 0, fmt.Errorf("decompressing: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return load(ctx, r)
}
