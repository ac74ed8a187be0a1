package source

import (
	"crypto/sha1" // git's; what is kept is told by a sha256 besides
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
)

// object is what a git tree says of a name.
type object struct {
	mode string
	sum  [sha1.Size]byte
}

func blobSum(data []byte) [sha1.Size]byte { return gitSum("blob", data) }

func gitSum(kind string, data []byte) (sum [sha1.Size]byte) {
	h := sha1.New()
	fmt.Fprintf(h, "%s %d\x00", kind, len(data))
	h.Write(data)
	h.Sum(sum[:0])
	return sum
}

// treeHash is the hash of a git tree with these files and links. Git knows no empty folders.
func treeHash(objects map[string]object) string {
	type child struct {
		object
		name string
	}
	folders := map[string][]child{".": nil}
	for name, o := range objects {
		dir := path.Dir(name)
		folders[dir] = append(folders[dir], child{o, path.Base(name)})
		for ; dir != "."; dir = path.Dir(dir) {
			if _, ok := folders[path.Dir(dir)]; !ok {
				folders[path.Dir(dir)] = nil
			}
		}
	}
	hash := func(dir string) [sha1.Size]byte {
		list := folders[dir]
		slices.SortFunc(list, func(a, b child) int { return strings.Compare(a.order(a.name), b.order(b.name)) })
		var data []byte
		for _, c := range list {
			data = append(data, c.mode+" "+c.name+"\x00"...)
			data = append(data, c.sum[:]...)
		}
		return gitSum("tree", data)
	}
	// A folder sorts before what is in it, so from the end each comes after its content.
	var dirs []string
	for dir := range folders {
		if dir != "." {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	for _, dir := range slices.Backward(dirs) {
		up := path.Dir(dir)
		folders[up] = append(folders[up], child{object{modeFolder, hash(dir)}, path.Base(dir)})
	}
	root := hash(".")
	return hex.EncodeToString(root[:])
}

// order is what git sorts a name by: a folder as if a slash ended it.
func (o object) order(name string) string {
	if o.mode == modeFolder {
		return name + "/"
	}
	return name
}
