package manifest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"sync"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/openapi"

	"atoll/bundle"
	"atoll/bundle/source"
)

// Bounds on a tree of kustomizations. Kubeflow 26.03, the largest stack meant to
// be rendered, is 12 MB when rendered, and its biggest file has 4 MB.
const (
	maxFile  = 16 << 20  // bytes of one file
	maxTree  = 256 << 20 // bytes of all files
	maxFiles = 50_000
)

// Object is one Kubernetes object.
type Object struct {
	// Source is where it comes from: the folder of a kustomization, or a file.
	Source string
	// Path is where it stands in a list, like "items[0].", or empty.
	Path string
	// Value is the object as JSON would decode it.
	Value map[string]any
}

// Render builds the kustomization in a folder of fsys, in process. Objects come in
// an order that can be applied: definitions first, webhook configurations last.
// A resource that is not in fsys, a URL above all, is an error that names the file
// it stands in.
func Render(fsys fs.FS, dir string) ([]Object, error) {
	t := newTree(nil)
	if err := t.add("", fsys); err != nil {
		return nil, fmt.Errorf("rendering %s: %w", dir, err)
	}
	if err := t.check(dir); err != nil {
		return nil, fmt.Errorf("rendering %s: %w", dir, err)
	}
	return t.render(dir)
}

// tree is all that kustomizations may read.
type tree struct {
	fsys    *carefulFS
	sources []bundle.Source // below sourcesDir
	files   int
	size    int64     // bytes of all files
	sum     hash.Hash // over names and contents
	schema  bool      // a kustomization has an OpenAPI schema of its own
}

// sourcesDir is where a tree has its sources, each in a folder of its name.
const sourcesDir = ".sources"

func newTree(sources []bundle.Source) *tree {
	return &tree{fsys: newCarefulFS(filesys.MakeFsInMemory()), sources: sources, sum: sha256.New()}
}

// add copies a file system into a folder of the tree.
func (t *tree) add(dir string, fsys fs.FS) error {
	return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := readFile(fsys, name)
		if err != nil {
			return err
		}
		return t.addFile(path.Join(dir, name), data)
	})
}

// addSources mounts the tree's sources.
func (t *tree) addSources(trees map[string]*source.Tree) error {
	for _, s := range t.sources {
		if trees[s.Name] == nil {
			return fmt.Errorf("source %s is not at hand", s.Name)
		}
		for name, data := range trees[s.Name].Files() {
			if len(data) > maxFile {
				continue // no manifest; should one need it, it will be missed by name
			}
			if err := t.addFile(path.Join(sourcesDir, s.Name, name), data); err != nil {
				return fmt.Errorf("source %s: %w", s.Name, err)
			}
		}
	}
	return nil
}

// addFile refuses what is out of bounds.
func (t *tree) addFile(name string, data []byte) error {
	if t.files++; t.files > maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	if t.size += int64(len(data)); t.size > maxTree {
		return fmt.Errorf("files have more than %d MiB", maxTree>>20)
	}
	if len(data) > maxFile {
		return fmt.Errorf("%s has more than %d MiB", name, maxFile>>20)
	}
	fmt.Fprintf(t.sum, "%s\x00%d\x00", name, len(data))
	t.sum.Write(data)
	return t.fsys.WriteFile(path.Join("/", name), data)
}

// check makes sure that all that the kustomization in dir needs is in the tree, and
// points what it names by URL at the sources.
func (t *tree) check(dir string) error {
	c := localChecker{fsys: t.fsys, sources: t.sources, inTree: !path.IsAbs(dir), seen: map[string]bool{}}
	err := c.folder(path.Join("/", dir))
	t.schema = t.schema || c.schema
	return err
}

// schemas guards kustomize's OpenAPI schema, which the whole process shares. It is read
// by every rendering and changed only where a kustomization brings one of its own.
// https://github.com/kubernetes-sigs/kustomize/issues/4824
var schemas sync.RWMutex

// render builds what check has seen. Several may run at once.
func (t *tree) render(dir string) ([]Object, error) {
	if t.schema {
		schemas.Lock()
		defer schemas.Unlock()
		defer openapi.ResetOpenAPI()
	} else {
		schemas.RLock()
		defer schemas.RUnlock()
	}
	opts := krusty.MakeDefaultOptions()
	opts.LoadRestrictions = types.LoadRestrictionsNone // the tree is all there is
	opts.Reorder = krusty.ReorderOptionLegacy          // sorted by kind, namespace and name
	resources, err := krusty.MakeKustomizer(opts).Run(t.fsys, path.Join("/", dir))
	if err != nil {
		return nil, fmt.Errorf("rendering %s: %w", dir, err)
	}
	objs := make([]Object, 0, resources.Size())
	for _, r := range resources.Resources() {
		value, err := r.Map()
		if err != nil {
			return nil, fmt.Errorf("rendering %s: %s: %w", dir, r.CurId(), err)
		}
		if objs, err = expand(objs, Object{Source: dir, Value: value}, 0); err != nil {
			return nil, fmt.Errorf("rendering %s: %s: %w", dir, r.CurId(), err)
		}
	}
	return objs, nil
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s has more than %d MiB", name, maxFile>>20)
	}
	return data, nil
}
