package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// replace gives a file other content from now on. On disk it stays as it is.
func (c *carefulFS) replace(name string, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[name] = data
}

// sourcesFS is a file system on which sources are mounted, at sourcesDir.
type sourcesFS struct {
	filesys.FileSystem
	sources filesys.FileSystem
}

func (s *sourcesFS) of(name string) filesys.FileSystem {
	if strings.HasPrefix(name, "/"+sourcesDir+"/") {
		return s.sources
	}
	return s.FileSystem
}

func (s *sourcesFS) IsDir(name string) bool                { return s.of(name).IsDir(name) }
func (s *sourcesFS) Exists(name string) bool               { return s.of(name).Exists(name) }
func (s *sourcesFS) ReadDir(name string) ([]string, error) { return s.of(name).ReadDir(name) }
func (s *sourcesFS) ReadFile(name string) ([]byte, error)  { return s.of(name).ReadFile(name) }
func (s *sourcesFS) Glob(pattern string) ([]string, error) { return s.of(pattern).Glob(pattern) }
func (s *sourcesFS) WriteFile(name string, data []byte) error {
	return s.of(name).WriteFile(name, data)
}
func (s *sourcesFS) Walk(name string, f filepath.WalkFunc) error {
	return s.of(name).Walk(name, f)
}
func (s *sourcesFS) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	return s.of(name).CleanedAbs(name)
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
