package source

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// ReadFolder reads a folder on disk, as [ReadArchive] reads an archive of it. A .git in
// it does not count, but files that git ignores do. Symbolic links stay links.
func ReadFolder(dir, keep string) (*Tree, error) {
	t, err := readFolder(dir, keep, defaults)
	if err != nil {
		return nil, fmt.Errorf("reading folder %s: %w", dir, err)
	}
	return t, nil
}

func readFolder(dir, keep string, l limits) (*Tree, error) {
	b, err := newBuilder(keep, l)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".":
			return nil
		case name == ".git" && d.IsDir():
			return fs.SkipDir
		case name == ".git": // of a worktree
			return nil
		}
		return b.addDisk(root, name, d.Type())
	})
	if err != nil {
		return nil, err
	}
	return b.tree(false)
}

func (b *builder) addDisk(root *os.Root, name string, kind fs.FileMode) error {
	switch kind {
	case fs.ModeDir:
		return b.add(name, modeFolder, nil)
	case fs.ModeSymlink:
		target, err := root.Readlink(name)
		if err != nil {
			return err
		}
		return b.add(name, modeLink, []byte(target))
	case 0:
		return b.addFile(root, name)
	}
	return refuse("%q is no file, folder or symbolic link", name)
}

func (b *builder) addFile(root *os.Root, name string) error {
	// It may have become a pipe since it was listed: do not wait for a writer.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return refuse("%q is no file, folder or symbolic link", name)
	}
	data, err := b.content(name, info.Size(), f)
	if err != nil {
		return err
	}
	if n, err := f.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		return fmt.Errorf("reading %q: it grows", name)
	}
	return b.add(name, fileMode(int64(info.Mode().Perm())), data)
}
