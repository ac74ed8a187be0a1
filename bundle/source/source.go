// Package source holds trees of files that manifests are taken from: a commit of a
// git repository, a folder, a single file. A tree is read from an archive or a folder
// ([ReadArchive], [ReadFolder]), told apart by the hash that git gives it, kept as a
// tar that is always the same ([Tree.Pack]) and read back from that ([Open]).
//
// What is read is not trusted: names, sizes and counts are bounded, nothing is written
// to disk, no link is followed out of the tree. Matchable errors: [ErrRefused].
package source

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"atoll/bundle/bounds"
)

// ErrRefused says that content is no sound tree. Reading it again is of no use.
var ErrRefused = errors.New("refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// limits bound a tree. They are fields so that tests can have small ones.
type limits struct {
	entries  int   // files, links and folders
	links    int   // links
	names    int64 // bytes of all paths
	unpacked int64 // bytes of all files, and of the archive, packed or unpacked
	kept     int64 // bytes of what is kept, with names
	file     int64 // bytes of one file
}

var defaults = limits{
	entries: bounds.SourceEntries, links: bounds.SourceLinks, names: bounds.SourceNames,
	unpacked: bounds.SourceBytes, kept: bounds.SourceKept, file: bounds.SourceFile,
}

// Tree is a tree of files in memory. It does not change, so many goroutines may use one.
type Tree struct {
	hash    string
	entries []entry        // files and links, sorted by path
	index   map[string]int // in entries, by path; folder for a folder
}

const folder = -1

type entry struct {
	path string
	mode string // git's
	data []byte // a file's content, a link's target
}

// Git's modes of what a tree may hold.
const (
	modeFile       = "100644"
	modeExecutable = "100755"
	modeLink       = "120000"
	modeFolder     = "40000"
)

// FromFile gives the tree of one file, whose name has no folder.
func FromFile(name string, data []byte) *Tree {
	objects := map[string]object{name: {mode: modeFile, sum: blobSum(data)}}
	return newTree(treeHash(objects), []entry{{path: name, mode: modeFile, data: data}})
}

// newTree makes a tree of entries in any order.
func newTree(hash string, entries []entry) *Tree {
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	t := &Tree{hash: hash, entries: entries, index: map[string]int{".": folder}}
	for i, e := range entries {
		t.index[e.path] = i
		for dir := path.Dir(e.path); t.index[dir] != folder; dir = path.Dir(dir) {
			t.index[dir] = folder
		}
	}
	return t
}

// Hash is the hash that git gives the tree (sha1, hexadecimal): that of all that was
// read, kept or not. A git archive has the hash of its commit's tree, unless
// submodules, which it has as empty folders, or attributes (export-ignore,
// export-subst) make it another one.
func (t *Tree) Hash() string { return t.hash }

// Files gives the files by path, sorted. A link that leads to a file of the tree is
// that file once more; other links are left out, those to folders too. The content is
// the tree's own: do not change it.
func (t *Tree) Files() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, e := range t.entries {
			data := e.data
			if e.mode == modeLink {
				at, ok := t.follow(e.path)
				if !ok {
					continue
				}
				data = t.entries[at].data
			}
			if !yield(e.path, data) {
				return
			}
		}
	}
}

// follow finds the file that a path leads to, as Linux does; false if there is none.
func (t *Tree) follow(name string) (int, bool) {
	at, todo := ".", strings.Split(name, "/")
	for steps := 0; len(todo) > 0; steps++ {
		if t.index[at] != folder {
			return 0, false
		}
		at, todo = path.Join(at, todo[0]), todo[1:]
		i, ok := t.index[at]
		if !ok {
			return 0, false
		}
		if i == folder || t.entries[i].mode != modeLink {
			continue
		}
		target := string(t.entries[i].data)
		if path.IsAbs(target) || steps+len(todo)+strings.Count(target, "/") > bounds.SourceSteps {
			return 0, false
		}
		at, todo = path.Dir(at), append(strings.Split(target, "/"), todo...)
	}
	i := t.index[at]
	return i, i != folder
}

// builder gathers a tree.
type builder struct {
	limits
	keep  string // the folder whose content is kept; "." for all
	nodes map[string]node

	linksNow                       int
	namesNow, unpackedNow, keptNow int64
}

// node is an entry of a tree that is being read.
type node struct {
	object
	data []byte // nil if it is not kept
}

func newBuilder(keep string, l limits) (*builder, error) {
	keep = path.Clean(strings.TrimSuffix(keep, "/"))
	if !fs.ValidPath(keep) {
		return nil, refuse("folder to keep %q is no path in a tree", keep)
	}
	return &builder{limits: l, keep: keep, nodes: map[string]node{}}, nil
}

// add takes an entry and, as nothing else names them, the folders it is in. data is
// kept as it is.
func (b *builder) add(name, mode string, data []byte) error {
	if !fs.ValidPath(name) || strings.ContainsAny(name, "\\\x00") || len(name) > bounds.SourcePath {
		return refuse("name %.100q is not one of a file in a tree", name)
	}
	if mode == modeLink && (len(data) == 0 || len(data) > bounds.SourcePath || slices.Contains(data, 0)) {
		return refuse("link %q has target %.100q", name, data)
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		n, ok := b.nodes[dir]
		if ok && n.mode != modeFolder {
			return refuse("%q is a folder and something else", dir)
		}
		if ok {
			break
		}
		b.nodes[dir] = node{object: object{mode: modeFolder}}
	}
	n := node{object: object{mode: mode}}
	if old, ok := b.nodes[name]; ok && (old.mode != modeFolder || mode != modeFolder) {
		return refuse("%q is in it twice", name)
	}
	b.namesNow += int64(len(name))
	b.keptNow += int64(len(name))
	if mode == modeLink {
		b.linksNow++
	}
	if mode != modeFolder {
		n.sum = blobSum(data)
		b.unpackedNow += int64(len(data))
		// Whether the first folder counts is not known before the end.
		if _, below, _ := strings.Cut(name, "/"); b.keeps(name) || b.keeps(below) {
			b.keptNow += int64(len(data))
			n.data = data
		}
	}
	b.nodes[name] = n
	switch {
	case len(b.nodes) > b.entries:
		return refuse("it has more than %d files and folders", b.entries)
	case b.linksNow > b.links:
		return refuse("it has more than %d symbolic links", b.links)
	case b.namesNow > b.names:
		return refuse("its paths have more than %d MiB", b.names>>20)
	case b.unpackedNow > b.unpacked:
		return refuse("its files have more than %d MiB", b.unpacked>>20)
	case b.keptNow > b.kept:
		return refuse("what is to be kept has more than %d MiB", b.kept>>20)
	}
	return nil
}

func (b *builder) keeps(name string) bool {
	return b.keep == "." || strings.HasPrefix(name, b.keep+"/")
}

// tree ends the reading. strip takes away a folder that all the rest is in.
func (b *builder) tree(strip bool) (*Tree, error) {
	prefix := ""
	if top, ok := b.top(); ok && strip {
		prefix = top + "/"
	}
	objects := map[string]object{}
	var entries []entry
	for name, n := range b.nodes {
		name, ok := strings.CutPrefix(name, prefix)
		// No commit holds a .git.
		if !ok || n.mode == modeFolder || name == ".git" || strings.HasPrefix(name, ".git/") {
			continue
		}
		objects[name] = n.object
		if b.keeps(name) {
			entries = append(entries, entry{path: name, mode: n.mode, data: n.data})
		}
	}
	if len(entries) == 0 && b.keep != "." {
		return nil, refuse("it has no folder %q with files", b.keep)
	}
	if len(entries) == 0 {
		return nil, refuse("it has no files")
	}
	return newTree(treeHash(objects), entries), nil
}

// top is the folder that all the rest is in; false if there is none.
func (b *builder) top() (string, bool) {
	top := ""
	for name, n := range b.nodes {
		first, _, below := strings.Cut(name, "/")
		if !below && n.mode != modeFolder || top != "" && first != top {
			return "", false
		}
		top = first
	}
	return top, top != ""
}
