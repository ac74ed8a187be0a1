package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// carefulFS gives files such that kustomize may read them and sees all that is in them.
// Each is looked at when it is first read: of a tree most never are.
type carefulFS struct {
	filesys.FileSystem

	mu    sync.Mutex
	files map[string][]byte
}

func newCarefulFS(fsys filesys.FileSystem) *carefulFS {
	return &carefulFS{FileSystem: fsys, files: map[string][]byte{}}
}

func (c *carefulFS) ReadFile(name string) ([]byte, error) {
	c.mu.Lock()
	data, ok := c.files[name]
	c.mu.Unlock()
	if ok {
		return data, nil
	}
	data, err := c.FileSystem.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if err := checkAliases(data); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	data = untype(name, data)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[name] = data
	return data, nil
}

func (c *carefulFS) WriteFile(name string, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.files, name)
	return c.FileSystem.WriteFile(name, data)
}

// boundedFS reads files from disk as far as they are reasonable.
type boundedFS struct {
	filesys.FileSystem
	read int64
}

func (b *boundedFS) ReadFile(name string) ([]byte, error) {
	data, err := readFile(os.DirFS(filepath.Dir(name)), filepath.Base(name))
	if err != nil {
		return nil, err
	}
	if b.read += int64(len(data)); b.read > maxTree {
		return nil, errors.New("files have too many bytes")
	}
	return data, nil
}
