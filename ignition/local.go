package ignition

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// checkSize refuses a "local:" file that is outside of the folder of files, also
// through a symbolic link, which Butane would follow; or that is no file. And it refuses
// what would become too large: a small text can name a large file, or a part of itself,
// again and again.
func checkSize(b Butane, root *yaml.Node) error {
	c := sizeCheck{butane: b, left: bounds.FirstBoot, known: map[string]int64{}}
	return c.check(root)
}

// sizeCheck goes through a document the way Butane does: along aliases, of which
// [bounds.YAML] has bounded the number.
type sizeCheck struct {
	butane Butane
	left   int64            // bytes that there may yet be
	known  map[string]int64 // sizes of local files and trees
}

func (c *sizeCheck) check(n *yaml.Node) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	size := int64(len(n.Value))
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && text(n.Content[i-1]) == "local" {
			local, err := c.local(child)
			if err != nil {
				return &bundle.DefinitionError{File: c.butane.Name, Line: child.Line, Path: "local", Msg: err.Error()}
			}
			size += local
		}
		if err := c.check(child); err != nil {
			return err
		}
	}
	if c.left -= size; c.left < 0 {
		return &bundle.DefinitionError{File: c.butane.Name, Line: n.Line, Msg: fmt.Sprintf("what it holds and names has more than %d bytes: put large files into an image or package", bounds.FirstBoot)}
	}
	return nil
}

// text is a node as a string, as Butane reads it: an alias or base64 too. It is empty if it
// is none.
func text(n *yaml.Node) string {
	var s string
	if n.Decode(&s) != nil {
		return ""
	}
	return s
}

// local is the size of what a node names, if it names anything.
func (c *sizeCheck) local(n *yaml.Node) (int64, error) {
	name := text(n)
	if size, ok := c.known[name]; ok || name == "" {
		return size, nil
	}
	size, err := localSize(c.butane.FilesDir, name)
	c.known[name] = size
	return size, err
}

// localSize is the size of a local file, or of all files of a local tree.
func localSize(dir, name string) (size int64, err error) {
	if dir == "" {
		return 0, fmt.Errorf("%q cannot be read: there is no folder of files", name)
	}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return 0, err
	}
	real, err := filepath.EvalSymlinks(filepath.Join(root, name))
	if err != nil {
		return 0, err
	}
	if rel, err := filepath.Rel(root, real); err != nil || !filepath.IsLocal(rel) {
		return 0, fmt.Errorf("%q is refused: it leads out of %s", name, dir)
	}
	// A tree's own links stay links, so only the files of it are read.
	files := 0
	err = filepath.WalkDir(real, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if files++; files > bounds.Files {
			return fmt.Errorf("%s has more than %d files", real, bounds.Files)
		}
		if d.IsDir() || d.Type() == fs.ModeSymlink {
			return nil
		}
		info, err := os.Lstat(path)
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a regular file", path)
		}
		if err != nil {
			return err
		}
		if size += info.Size(); size > bounds.FirstBoot {
			return fmt.Errorf("%s has more than %d bytes: put large files into an image or package", path, bounds.FirstBoot)
		}
		return nil
	})
	return size, err
}
