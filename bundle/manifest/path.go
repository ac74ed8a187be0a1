package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"atoll/bundle"
	"atoll/bundle/source"
)

// Read gives the objects of manifests on disk: of a file with YAML or JSON, of a
// kustomization (its folder), or of every .yaml, .yml and .json file below a folder. A
// document of a folder that is no Kubernetes object, like Helm's values, is given as it is.
// What a kustomization names by URL is taken from the sources, which have trees by their names.
func Read(name string, sources []bundle.Source, trees map[string]*source.Tree) ([]Object, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	if !info.IsDir() {
		return readManifest(os.DirFS(filepath.Dir(name)), filepath.Base(name), false)
	}
	for _, k := range konfig.RecognizedKustomizationFileNames() {
		if _, err := os.Stat(filepath.Join(name, k)); err == nil {
			objs, err := readKustomization(name, sources, trees)
			for i := range objs {
				objs[i].Source = name
			}
			return objs, err
		}
	}
	return readFolder(os.DirFS(name))
}

func readKustomization(dir string, sources []bundle.Source, trees map[string]*source.Tree) ([]Object, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	t := newTree(sources)
	t.fsys = newCarefulFS(&sourcesFS{FileSystem: &boundedFS{FileSystem: filesys.MakeFsOnDisk()}, sources: filesys.MakeFsInMemory()})
	if err := errors.Join(t.addSources(trees), t.check(abs)); err != nil {
		return nil, fmt.Errorf("rendering %s: %w", dir, err)
	}
	return t.render(abs)
}

func readFolder(fsys fs.FS) ([]Object, error) {
	var objs []Object
	var files int
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isManifest(name) {
			return err
		}
		if files++; files > maxFiles {
			return fmt.Errorf("reading manifests: more than %d files", maxFiles)
		}
		o, err := readManifest(fsys, name, true)
		objs = append(objs, o...)
		return err
	})
	return objs, err
}

func isManifest(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

func readManifest(fsys fs.FS, name string, all bool) ([]Object, error) {
	data, err := readFile(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	return parse(name, data, all)
}
