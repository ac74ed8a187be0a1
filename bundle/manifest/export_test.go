package manifest

import (
	"context"
	"io/fs"
	"path"

	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Unchecked gives kustomize a file system as it is, guarded or not.
func Unchecked(ctx context.Context, fsys filesys.FileSystem, dir string, guard bool) error {
	if guard {
		_, err := kustomize(ctx, fsys, dir, false)
		return err
	}
	_, err := run(fsys, dir)
	return err
}

// Checked is what the checker made of a kustomization, and what kustomize made of that.
type Checked struct {
	Kustomization *types.Kustomization // as kustomize reads it
	Err           error                // of kustomize
}

// Check checks the kustomization in a folder, and renders it.
func Check(ctx context.Context, fsys fs.FS, dir string) (*Checked, error) {
	t := newTree(nil)
	if err := t.add("", fsys); err != nil {
		return nil, err
	}
	if _, err := t.check(dir); err != nil {
		return nil, err
	}
	data, err := t.checker.checked.ReadFile(path.Join("/", dir, "kustomization.yaml"))
	if err != nil {
		return nil, err
	}
	var c Checked
	c.Kustomization = &types.Kustomization{}
	if err := c.Kustomization.Unmarshal(data); err != nil {
		return nil, err
	}
	_, c.Err = t.render(ctx, dir)
	return &c, nil
}
