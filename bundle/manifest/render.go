package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Bounds on a tree of kustomizations. Kubeflow 26.03, the largest stack meant to
// be rendered, is 12 MB when rendered, and its biggest file has 4 MB.
const (
	maxFile  = 16 << 20 // bytes of one file
	maxTree  = 96 << 20 // bytes of all files
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
	mem, err := load(fsys)
	if err != nil {
		return nil, fmt.Errorf("rendering %s: %w", dir, err)
	}
	return render(mem, dir)
}

func render(mem filesys.FileSystem, dir string) ([]Object, error) {
	if err := checkLocal(mem, dir); err != nil {
		return nil, fmt.Errorf("rendering %s: %w", dir, err)
	}
	opts := krusty.MakeDefaultOptions()
	opts.LoadRestrictions = types.LoadRestrictionsNone // the tree is all there is
	opts.Reorder = krusty.ReorderOptionLegacy          // sorted by kind, namespace and name
	resources, err := krusty.MakeKustomizer(opts).Run(mem, path.Join("/", dir))
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

// load copies a tree into memory, bounded, and refuses alias bombs.
func load(fsys fs.FS) (filesys.FileSystem, error) {
	mem := filesys.MakeFsInMemory()
	var files int
	var total int64
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if files++; files > maxFiles {
			return fmt.Errorf("more than %d files", maxFiles)
		}
		data, err := readFile(fsys, name)
		if err != nil {
			return err
		}
		if total += int64(len(data)); total > maxTree {
			return fmt.Errorf("files have more than %d MiB", maxTree>>20)
		}
		if err := checkAliases(data); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return mem.WriteFile(path.Join("/", name), untype(name, data))
	})
	if err != nil {
		return nil, err
	}
	return mem, nil
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
