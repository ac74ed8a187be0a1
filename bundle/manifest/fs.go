package manifest

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"sigs.k8s.io/kustomize/kyaml/filesys"

	"atoll/bundle/bounds"
)

// A space is where kustomizations lie, by absolute paths with slashes.
type space interface {
	// folder returns the true path of a folder: with no symbolic link in it.
	folder(name string) (string, error)
	// read reads a regular file for the kustomization of a folder. One that is not for it
	// to see is an [ErrOutside].
	read(folder, name string) ([]byte, error)
}

// memory is a space of files in memory, all of which are there for all.
type memory struct {
	files   map[string][]byte
	folders map[string]bool
}

func newMemory() *memory { return &memory{files: map[string][]byte{}, folders: map[string]bool{}} }

func (m *memory) write(name string, data []byte) {
	m.files[name] = data
	for dir := path.Dir(name); !m.folders[dir]; dir = path.Dir(dir) {
		m.folders[dir] = true
	}
}

func (m *memory) folder(name string) (string, error) {
	if !m.folders[name] {
		return "", fs.ErrNotExist
	}
	return name, nil
}

func (m *memory) read(_, name string) ([]byte, error) {
	data, ok := m.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

// disk is the machine's disk, with sources mounted at sourcesDir. As with kustomize, files
// lie in or below the folder of the kustomization that names them; other kustomizations
// may lie anywhere.
type disk struct {
	sources *memory
	bytes   int64 // that were read
}

func isSource(name string) bool { return strings.HasPrefix(name, "/"+sourcesDir+"/") }

func (d *disk) folder(name string) (string, error) {
	if isSource(name) {
		return d.sources.folder(name)
	}
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", fs.ErrNotExist
	}
	return real, nil
}

func (d *disk) read(folder, name string) ([]byte, error) {
	if isSource(name) {
		return d.sources.read(folder, name)
	}
	data, err := readInside(folder, name)
	if err != nil {
		return nil, err
	}
	if d.bytes += int64(len(data)); d.bytes > bounds.Tree {
		return nil, fmt.Errorf("files have more than %d MiB", bounds.Tree>>20)
	}
	return data, nil
}

// checkedFS is all that kustomize reads: what a checker has put there.
type checkedFS struct {
	filesys.FileSystem // has nothing
	folders            map[string]bool
	files              map[string]*checkedFile
}

// checkedFile is looked at when it is first read: of a tree most never are.
type checkedFile struct {
	once sync.Once
	data []byte
	err  error
	yaml bool // is read as YAML
}

func newCheckedFS() *checkedFS {
	return &checkedFS{FileSystem: filesys.MakeFsInMemory(), folders: map[string]bool{}, files: map[string]*checkedFile{}}
}

// put gives kustomize a file as it is; putYAML one that is made such that kustomize may read
// it and sees all that is in it.
func (c *checkedFS) put(name string, data []byte) { c.files[name] = &checkedFile{data: data} }
func (c *checkedFS) putYAML(name string, data []byte) {
	c.files[name] = &checkedFile{data: data, yaml: true}
}

func (c *checkedFS) ReadFile(name string) ([]byte, error) {
	f := c.files[name]
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f.once.Do(func() {
		if !f.yaml {
			return
		}
		f.data = plainEnds(f.data)
		if err := bounds.YAML(f.data); err != nil {
			f.err = fmt.Errorf("%s: %w", name, err)
			return
		}
		f.data = untype(name, f.data)
	})
	return f.data, f.err
}

// CleanedAbs is what kustomize asks for a folder by.
func (c *checkedFS) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	name = path.Clean(name)
	switch {
	case c.folders[name]:
		return filesys.ConfirmedDir(name), "", nil
	case c.files[name] != nil:
		return filesys.ConfirmedDir(path.Dir(name)), path.Base(name), nil
	}
	return "", "", &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (c *checkedFS) Exists(name string) bool { return c.folders[name] || c.files[name] != nil }
func (c *checkedFS) IsDir(name string) bool  { return c.folders[name] }
