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
		data, err := bounds.ReadFile(name)
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
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	defer root.Close()
	var objs []Object
	var files, size int
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isManifest(name) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if files++; files > bounds.Files {
			return fmt.Errorf("reading manifests: more than %d files", bounds.Files)
		}
		data, err := readIn(root, name)
		if err != nil {
			return fmt.Errorf("reading manifests: %w", err)
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

func readIn(root *os.Root, name string) ([]byte, error) {
	f, err := bounds.OpenIn(root, name)
	if err != nil {
		return nil, err
	}
	return bounds.Read(name, f)
}

func isManifest(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}
