package manifest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"sigs.k8s.io/kustomize/api/konfig"

	"atoll/bundle"
	"atoll/bundle/bounds"
	"atoll/bundle/source"
)

// Read gives the objects of manifests on disk: of a file with YAML or JSON, of a
// kustomization (its folder), or of every .yaml, .yml and .json file below a folder. A
// document of a folder that is no Kubernetes object, like Helm's values, is given as it is.
// What a kustomization names by URL is taken from the sources, which have trees by their
// names. It reads regular files only, and none outside of the folder; a kustomization may
// build upon others elsewhere, of which that holds too.
func Read(ctx context.Context, name string, sources []bundle.Source, trees map[string]*source.Tree) ([]Object, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	if !info.IsDir() {
		data, err := bundle.ReadRegular(name, bounds.File)
		if err != nil {
			return nil, fmt.Errorf("reading manifests: %w", err)
		}
		return parse(filepath.Base(name), data, false)
	}
	for _, k := range konfig.RecognizedKustomizationFileNames() {
		if _, err := os.Lstat(filepath.Join(name, k)); err == nil {
			objs, err := readKustomization(ctx, name, sources, trees)
			for i := range objs {
				objs[i].Source = name
			}
			return objs, err
		}
	}
	return readFolder(ctx, name)
}

func readKustomization(ctx context.Context, dir string, sources []bundle.Source, trees map[string]*source.Tree) ([]Object, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	t := newDiskTree(sources)
	if err := t.addSources(trees); err != nil {
		return nil, fmt.Errorf("rendering %s: %w", dir, err)
	}
	if _, err := t.check(abs); err != nil {
		return nil, fmt.Errorf("rendering %s: %w", dir, err)
	}
	return t.render(ctx, abs)
}

func readFolder(ctx context.Context, dir string) ([]Object, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	var objs []Object
	var files, size int
	err = fs.WalkDir(os.DirFS(real), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isManifest(name) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if files++; files > bounds.Files {
			return fmt.Errorf("reading manifests: more than %d files", bounds.Files)
		}
		data, err := readInside(real, filepath.Join(real, name))
		if err != nil {
			return fmt.Errorf("reading manifests: %s: %w", name, err)
		}
		if size += len(data); size > bounds.Tree {
			return errors.New("reading manifests: files have too many bytes")
		}
		o, err := parse(name, data, true)
		objs = append(objs, o...)
		return err
	})
	return objs, err
}

// ErrOutside says that a file is neither in the folder that it must be in nor below.
var ErrOutside = errors.New("it is outside of the folder")

// readInside reads a regular file in a folder, whose true path is given. No symbolic link
// leads out of it.
func readInside(folder, name string) ([]byte, error) {
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, err
	}
	if rel, err := filepath.Rel(folder, real); err != nil || !filepath.IsLocal(rel) {
		return nil, ErrOutside
	}
	return bundle.ReadRegular(real, bounds.File)
}

func isManifest(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}
