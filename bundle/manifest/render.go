package manifest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"

	"atoll/bundle"
	"atoll/bundle/bounds"
	"atoll/bundle/source"
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
	if _, err := t.check(dir); err != nil {
		return nil, fmt.Errorf("rendering %s: %w", dir, err)
	}
	return t.render(context.Background(), dir)
}

// tree is all that kustomizations may read.
type tree struct {
	memory  *memory
	checker *checker
	files   int
	size    int64     // bytes of all files
	sum     hash.Hash // over names and contents
}

// sourcesDir is where a tree has its sources, each in a folder of its name.
const sourcesDir = ".sources"

// newTree makes a tree of which all is in memory.
func newTree(sources []bundle.Source) *tree {
	m := newMemory()
	return &tree{memory: m, sum: sha256.New(), checker: newChecker(m, sources, true)}
}

// newDiskTree makes one that is the machine's disk, with sources in memory.
func newDiskTree(sources []bundle.Source) *tree {
	m := newMemory()
	return &tree{memory: m, sum: sha256.New(), checker: newChecker(&disk{sources: m}, sources, false)}
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
	for _, s := range t.checker.sources {
		if trees[s.Name] == nil {
			return fmt.Errorf("source %s is not at hand", s.Name)
		}
		for name, data := range trees[s.Name].Files() {
			if len(data) > bounds.File {
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
	if t.files++; t.files > bounds.Files {
		return fmt.Errorf("more than %d files", bounds.Files)
	}
	if t.size += int64(len(data)); t.size > bounds.Tree {
		return fmt.Errorf("files have more than %d MiB", bounds.Tree>>20)
	}
	if len(data) > bounds.File {
		return fmt.Errorf("%s has more than %d MiB", name, bounds.File>>20)
	}
	fmt.Fprintf(t.sum, "%s\x00%d\x00", name, len(data))
	t.sum.Write(data)
	t.memory.write(path.Join("/", name), data)
	return nil
}

// check makes sure that all that the kustomization in dir needs is in the tree, points what
// it names by URL at the sources, and returns its kind.
func (t *tree) check(dir string) (kind string, err error) {
	dir, err = t.checker.folder(path.Join("/", dir))
	return t.checker.kinds[dir], err
}

// render builds what check has seen. Several may run at once.
func (t *tree) render(ctx context.Context, dir string) ([]Object, error) {
	real, err := t.checker.space.folder(path.Join("/", dir))
	if err != nil {
		return nil, fmt.Errorf("rendering %s: %w", dir, err)
	}
	resources, err := kustomize(ctx, t.checker.checked, real, t.checker.schema)
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
	data, err := io.ReadAll(io.LimitReader(f, bounds.File+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > bounds.File {
		return nil, fmt.Errorf("%s has more than %d MiB", name, bounds.File>>20)
	}
	return data, nil
}
