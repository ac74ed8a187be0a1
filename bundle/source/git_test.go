package source

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// repository is a real git repository with names that are easily sorted wrong.
type repository struct {
	t   *testing.T
	dir string
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git to compare with:", err)
	}
	r := &repository{t, t.TempDir()}
	r.git("init", "-q")
	for name, content := range map[string]string{
		"a/b":                          "b",
		"a/empty":                      "",
		"a.b":                          "dot sorts before slash",
		"a-b":                          "so does a dash",
		"a0":                           "a digit does not",
		"a b/ü/名前.yaml":                "kind: A\n",
		"common/base/x.yaml":           "kind: X\n",
		"common/base.yaml":             "kind: Y\n",
		"common-other/z.yaml":          "kind: Z\n",
		"crlf":                         "1\r\n2\r\n",
		".gitignore":                   "*.ignored\n",
		strings.Repeat("long/", 60):    "",
		strings.Repeat("n", 150) + "/": "",
	} {
		if strings.HasSuffix(name, "/") {
			name += "file"
		}
		r.write(name, content, 0o644)
	}
	r.write("run.sh", "#!/bin/sh\n", 0o755)
	r.write("not-run.sh", "#!/bin/sh\n", 0o654) // the owner cannot, so git does not call it executable
	for name, target := range map[string]string{
		"link": "a/b", "common/link": "base/x.yaml", "out": "../../etc/passwd", "abs": "/etc/passwd", "dirlink": "common/base",
		"long link": strings.Repeat("long/", 60) + "file",
	} {
		if err := os.Symlink(target, filepath.Join(r.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(r.dir, "empty/folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.git("add", "-A")
	r.git("commit", "-q", "-m", "first")
	return r
}

func (r *repository) write(name, content string, perm os.FileMode) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), perm); err != nil {
		r.t.Fatal(err)
	}
}

func (r *repository) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", r.dir, "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "core.autocrlf=false"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
	var told bytes.Buffer
	cmd.Stderr = &told
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git %v: %v: %s", args, err, told.String())
	}
	return string(out)
}

func (r *repository) tree() string { return strings.TrimSpace(r.git("rev-parse", "HEAD^{tree}")) }

func TestHashIsGits(t *testing.T) {
	r := newRepository(t)
	want := r.tree()
	check := func(name string, tree *Tree, err error) *Tree {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if tree.Hash() != want {
			t.Errorf("%s has hash %s, git says %s", name, tree.Hash(), want)
		}
		return tree
	}
	folder, err := ReadFolder(r.dir, "")
	check("folder", folder, err)
	plain := []byte(r.git("archive", "--format=tar", "--prefix=repo-1/", "HEAD"))
	var zst bytes.Buffer
	z, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	packed := pack(t, folder)
	for name, data := range map[string][]byte{
		"tar":            plain,
		"tar.gz":         []byte(r.git("archive", "--format=tar.gz", "--prefix=x/", "HEAD")),
		"tar.zst":        zst.Bytes(),
		"without prefix": []byte(r.git("archive", "--format=tar.gz", "HEAD")),
		"of tar's own":   tarOf(t, r.dir),
	} {
		tree, err := ReadArchive(bytes.NewReader(data), "")
		check(name, tree, err)
		if !bytes.Equal(pack(t, tree), packed) {
			t.Errorf("%s is packed otherwise than the folder", name)
		}
	}
	again, err := Open(bytes.NewReader(packed))
	check("packed", again, err)
	if !bytes.Equal(pack(t, again), packed) {
		t.Error("what was packed is packed otherwise")
	}

	// Another bit of the mode is another tree, and so is another name.
	if err := os.Chmod(filepath.Join(r.dir, "a-b"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.git("commit", "-q", "-a", "-m", "second")
	if old := want; r.tree() == old {
		t.Fatal("git did not see the mode")
	}
	want = r.tree()
	folder, err = ReadFolder(r.dir, "")
	check("folder with another mode", folder, err)
}

// tarOf is an archive that someone makes of a checkout, with its .git.
func tarOf(t *testing.T, dir string) []byte {
	t.Helper()
	out, err := exec.Command("tar", "-C", dir, "-cf", "-", ".").Output()
	if err != nil {
		t.Skip("no tar:", err)
	}
	return out
}

func TestKeep(t *testing.T) {
	r := newRepository(t)
	archive := []byte(r.git("archive", "--format=tar.gz", "--prefix=common/", "HEAD")) // a prefix that is a folder's name as well
	for _, keep := range []string{"common", "common/", "./common"} {
		tree, err := ReadArchive(bytes.NewReader(archive), keep)
		if err != nil {
			t.Fatal(err)
		}
		got := maps.Collect(tree.Files())
		want := map[string]string{"common/base.yaml": "kind: Y\n", "common/base/x.yaml": "kind: X\n", "common/link": "kind: X\n"}
		if !maps.EqualFunc(got, want, func(a []byte, b string) bool { return string(a) == b }) {
			t.Errorf("keep %q: got %q", keep, got)
		}
		if tree.Hash() != r.tree() {
			t.Errorf("keep %q: hash is not of all", keep)
		}
		folder, err := ReadFolder(r.dir, keep)
		if err != nil {
			t.Fatal(err)
		}
		if folder.Hash() != tree.Hash() || !bytes.Equal(pack(t, folder), pack(t, tree)) {
			t.Errorf("keep %q: the folder is another tree than its archive", keep)
		}
		again, err := Open(bytes.NewReader(pack(t, tree)))
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimSpace(r.git("rev-parse", "HEAD:common")); again.Hash() == want {
			t.Error("packed tree lost the folder that it is in")
		}
		if names := slices.Sorted(maps.Keys(maps.Collect(again.Files()))); len(names) != 3 || names[0] != "common/base.yaml" {
			t.Errorf("packed tree has %q", names)
		}
	}
}

func pack(t *testing.T, tree *Tree) []byte {
	t.Helper()
	data, err := tree.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return data
}
