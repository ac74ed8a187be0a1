package sbom

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// readPackages reads the locked packages out of the store, in the order of the lock. What is
// read of a package is kept in the cache under its digest.
func readPackages(ctx context.Context, in Input) ([]*deb, error) {
	locked := in.Lock.Packages
	debs := make([]*deb, len(locked))
	errs := make([]error, len(locked))
	var total int64
	for _, p := range locked {
		total += p.Size
	}
	var done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range locked {
		g.Go(func() error {
			if debs[i], errs[i] = readPackage(ctx, p, in.Store, in.Cache); errs[i] != nil {
				errs[i] = fmt.Errorf("reading package %s %s: %w", p.Name, p.Version, errs[i])
			}
			if n := done.Add(p.Size); in.Progress != nil {
				in.Progress(n, total)
			}
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return debs, errors.Join(errs...)
}

func readPackage(ctx context.Context, p bundle.LockedPackage, s *bundle.Store, cache string) (*deb, error) {
	whole, err := s.Has(ctx, p.Digest, p.Size)
	if err != nil {
		return nil, err
	}
	if !whole {
		return nil, fmt.Errorf("it is not in the store: %w", bundle.ErrIncomplete)
	}
	kept := filepath.Join(cache, p.Digest.Hex+".json")
	d, ok := readKept(kept)
	if !ok || cache == "" {
		if d, err = openDeb(ctx, p, s); err != nil {
			return nil, err
		}
		if cache != "" {
			keep(cache, kept, d)
		}
	}
	if d.Package != p.Name || d.Version != p.Version {
		return nil, fmt.Errorf("by its own word it is %q %q", d.Package, d.Version)
	}
	return d, nil
}

func openDeb(ctx context.Context, p bundle.LockedPackage, s *bundle.Store) (*deb, error) {
	f, err := s.Open(p.Digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readDeb(ctx, f, p.Size)
}

// keptFormat changes when the same package reads as something else.
const keptFormat = 1

// kept is a deb as the cache holds it.
type kept struct {
	Format int `json:"format"`
	deb
}

// readKept reads what an earlier run found; false if that is not there, or not usable.
func readKept(path string) (*deb, bool) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	// Text grows to six times its size where each byte of it is escaped.
	data, err := io.ReadAll(io.LimitReader(f, 6*(bounds.Copyright+bounds.DebFields)))
	if err != nil {
		return nil, false
	}
	var k kept
	if err := json.Unmarshal(data, &k); err != nil || k.Format != keptFormat {
		return nil, false
	}
	return &k.deb, true
}

// keep makes the next run quick. If it cannot, that run is slow.
func keep(dir, path string, d *deb) {
	data, err := json.Marshal(kept{keptFormat, *d})
	if err != nil || os.MkdirAll(dir, 0o755) != nil {
		return
	}
	_ = bundle.WriteFile(path, func(f *os.File) error { _, err := f.Write(data); return err })
}

// maxLinks bounds how often a copyright file is said to be that of another package.
const maxLinks = 8

// copyrightOf is the copyright file of a package. It may be that of another one, whose
// folder of documents is a package's own by way of a link (Debian policy 12.5).
func copyrightOf(d *deb, byName map[string]*deb) (string, error) {
	for range maxLinks {
		switch {
		case d.Copyright != "":
			return d.Copyright, nil
		case d.Lack != "":
			return "", errors.New(d.Lack)
		}
		rest, inDocs := strings.CutPrefix(d.Link, docs+"/")
		name, isCopyright := strings.CutSuffix(rest, "/copyright")
		next, locked := byName[name]
		if !inDocs || !isCopyright || !locked {
			return "", fmt.Errorf("its copyright file is a link to %q, which no locked package has", d.Link)
		}
		d = next
	}
	return "", errors.New("its copyright file is a link that leads nowhere")
}
