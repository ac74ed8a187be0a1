package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// file is a member of a tar; its content is the target of a link.
type file struct {
	name, content string
	kind          byte
}

func tarball(t testing.TB, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: f.kind, Mode: 0o644}
		if f.kind == 0 || f.kind == tar.TypeReg {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.content))
		} else {
			h.Linkname, f.content = f.content, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zip(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestFiles(t *testing.T) {
	link := func(name, target string) file { return file{name, target, tar.TypeSymlink} }
	tree, err := ReadArchive(bytes.NewReader(tarball(t,
		file{"x/d/", "", tar.TypeDir}, file{"x/d/f", "content", 0}, file{"x/e", "", 0},
		link("x/direct", "d/f"), link("x/dir", "d"), link("x/through", "dir/../d/./f"), link("x/d/up", "../e"),
		link("x/chain", "direct"), link("x/loop", "loop"), link("x/nowhere", "d/none"), link("x/none/up", "../none2/../e"),
		link("x/out", "../x/e"), link("x/d/out", "../../e"), link("x/abs", "/e"), link("x/slash", "e/"), link("x/under", "e/f"),
	)), "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for name, data := range tree.Files() {
		got = append(got, name+"="+string(data))
	}
	want := []string{"chain=content", "d/f=content", "d/up=", "direct=content", "e=", "through=content"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for range tree.Files() {
		break
	}
}

// TestManyLinks: links that double at each hop must not take longer with each.
func TestManyLinks(t *testing.T) {
	files := []file{{"f", "", 0}, {"d/x", "", 0}, {"l0", "d", tar.TypeSymlink}}
	for i := range 60 {
		files = append(files, file{fmt.Sprintf("l%d", i+1), strings.Repeat(fmt.Sprintf("l%d/../", i), 100) + "f", tar.TypeSymlink})
	}
	tree, err := ReadArchive(bytes.NewReader(tarball(t, files...)), "")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range tree.Files() {
		n++
	}
	if n != 2 { // l1 leads over 100 links
		t.Errorf("%d files, want 2", n)
	}
}

func TestStrip(t *testing.T) {
	for _, tc := range []struct {
		files []file
		want  string
	}{
		{[]file{{"top/a/b", "", 0}}, "a/b"},
		{[]file{{"./", "", tar.TypeDir}, {"./top/", "", tar.TypeDir}, {"./top/b", "", 0}}, "b"},
		{[]file{{"top/b", "", 0}, {"other/", "", tar.TypeDir}}, "top/b"},
		{[]file{{"top/b", "", 0}, {"c", "", 0}}, "c top/b"},
		{[]file{{"b", "", 0}}, "b"},
		{[]file{{"top/.git/HEAD", "", 0}, {"top/b", "", 0}, {"top/c/.git/HEAD", "", 0}}, "b c/.git/HEAD"},
		{[]file{{"top/.git", "gitdir: elsewhere", 0}, {"top/b", "", 0}}, "b"},
	} {
		tree, err := ReadArchive(bytes.NewReader(tarball(t, tc.files...)), "")
		if err != nil {
			t.Errorf("%v: %v", tc.files, err)
			continue
		}
		var names []string
		for name := range tree.Files() {
			names = append(names, name)
		}
		if got := strings.Join(names, " "); got != tc.want {
			t.Errorf("%v: got %s, want %s", tc.files, got, tc.want)
		}
	}
}

func TestRefused(t *testing.T) {
	long := strings.Repeat("a/", 600) + "f"
	for name, files := range map[string][]file{
		"parent":            {{"x/../../f", "", 0}},
		"parent first":      {{"../f", "", 0}},
		"absolute":          {{"/etc/f", "", 0}},
		"backslash":         {{`x\..\f`, "", 0}},
		"no UTF-8":          {{"x/\xff", "", 0}},
		"two slashes":       {{"x//f", "", 0}},
		"long":              {{long, "", 0}},
		"long target":       {{"x/l", long, tar.TypeSymlink}},
		"empty target":      {{"x/l", "", tar.TypeSymlink}},
		"twice":             {{"x/f", "1", 0}, {"x/f", "1", 0}},
		"file then folder":  {{"x/f", "1", 0}, {"x/f/g", "1", 0}},
		"folder then file":  {{"x/f/g", "1", 0}, {"x/f", "1", 0}},
		"below a link":      {{"x/f", "..", tar.TypeSymlink}, {"x/f/g", "1", 0}},
		"link over folder":  {{"x/f", "", tar.TypeDir}, {"x/f", "..", tar.TypeSymlink}},
		"hard link":         {{"x/f", "1", 0}, {"x/g", "x/f", tar.TypeLink}},
		"device":            {{"x/f", "", tar.TypeChar}},
		"pipe":              {{"x/f", "", tar.TypeFifo}},
		"no file":           {{"x/", "", tar.TypeDir}},
		"nothing but .git":  {{"x/.git/HEAD", "", 0}},
		"nothing":           nil,
		"nothing of folder": {{"kept-not/f", "", 0}, {"y", "", 0}},
	} {
		keep := ""
		if name == "nothing of folder" {
			keep = "kept"
		}
		if _, err := ReadArchive(bytes.NewReader(tarball(t, files...)), keep); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
	}
	for _, keep := range []string{"..", "/a", "a/../../b"} {
		if _, err := ReadArchive(bytes.NewReader(nil), keep); !errors.Is(err, ErrRefused) {
			t.Errorf("keep %q: got %v, want it refused", keep, err)
		}
	}
}

func TestBounds(t *testing.T) {
	small := limits{entries: 4, links: 4, names: 2000, unpacked: 64 << 10, kept: 2000, file: 1500}
	kb := strings.Repeat("1", 1000)
	for name, tc := range map[string]struct {
		files []file
		keep  string
		ok    bool
	}{
		"all within":   {files: []file{{"x/a", kb, 0}, {"x/b", kb[:900], 0}}, ok: true},
		"kept":         {files: []file{{"x/a", kb, 0}, {"x/b", kb, 0}}},
		"not kept":     {files: []file{{"x/a", kb + kb[:400], 0}, {"x/k/f", kb, 0}}, keep: "k", ok: true},
		"one file":     {files: []file{{"x/a", kb + kb, 0}, {"x/k/f", "", 0}}, keep: "k"},
		"names":        {files: []file{{"x/" + kb[:900], "", 0}, {"x/a/" + kb[:900], "", 0}, {"y/" + kb[:300], "", 0}}},
		"entries":      {files: []file{{"x/a", "", 0}, {"x/b", "", 0}, {"x/c", "", 0}, {"x/d", "", 0}}},
		"its folders":  {files: []file{{"x/a/b/c/d", "", 0}}},
		"four entries": {files: []file{{"x/a/b/d", "", 0}}, ok: true},
	} {
		_, err := readArchive(bytes.NewReader(zip(t, tarball(t, tc.files...))), tc.keep, small)
		if tc.ok && err != nil || !tc.ok && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: got %v, ok is %v", name, err, tc.ok)
		}
	}
}

// endless repeats its bytes for ever.
type endless struct{ data, rest []byte }

func (e *endless) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		e.rest = e.data
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func TestBombs(t *testing.T) {
	huge := func(size int64) []byte {
		var buf bytes.Buffer
		if err := tar.NewWriter(&buf).WriteHeader(&tar.Header{Name: "x/f", Size: size}); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	zeros := zip(t, make([]byte, 16<<20))
	for name, r := range map[string]io.Reader{
		"zeros":                   &endless{data: make([]byte, 1<<16)},
		"packed zeros":            &endless{data: zeros},
		"packed nothing":          &endless{data: zip(t, nil)},
		"zeros after a tar":       io.MultiReader(bytes.NewReader(zip(t, tarball(t, file{"x/f", "", 0}))), &endless{data: zeros}),
		"large file":              io.MultiReader(bytes.NewReader(huge(1<<40)), &endless{data: []byte{1}}),
		"a folder, over and over": &endless{data: tarball(t, file{"x/", "", tar.TypeDir})[:512]},
	} {
		l := defaults
		l.unpacked = 64 << 20
		if _, err := readArchive(r, "", l); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
	}
}

func TestCut(t *testing.T) {
	plain := tarball(t, file{"x/a", strings.Repeat("a", 600), 0}, file{"x/b", "b", 0})
	packed := zip(t, plain)
	for n := range len(packed) {
		if _, err := ReadArchive(bytes.NewReader(packed[:n]), ""); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Errorf("packed, cut at %d: got %v", n, err)
		}
	}
	for n := range len(plain) {
		if _, err := ReadArchive(bytes.NewReader(plain[:n]), ""); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("bare, cut at %d: got %v", n, err)
		}
	}
	whole, err := ReadArchive(bytes.NewReader(packed), "")
	if err != nil {
		t.Fatal(err)
	}
	for n := range packed {
		bad := bytes.Clone(packed)
		bad[n] ^= 0x10
		if tree, err := ReadArchive(bytes.NewReader(bad), ""); err == nil && tree.Hash() != whole.Hash() {
			t.Errorf("a flip at %d gives another tree", n)
		}
	}
	for _, data := range []string{"<html>log in</html>", strings.Repeat("<p>", 1000)} {
		if _, err := ReadArchive(strings.NewReader(data), ""); err == nil || errors.Is(err, ErrRefused) {
			t.Errorf("a page: got %v", err)
		}
	}
}

// TestPackStays: a lock holds the digest of the bytes, so they may never change.
func TestPackStays(t *testing.T) {
	tree, err := ReadArchive(bytes.NewReader(tarball(t, file{"x/ü/f", "content", 0}, file{"x/l", "ü/f", tar.TypeSymlink},
		file{"x/" + strings.Repeat("long/", 60) + "f", "", 0})), "")
	if err != nil {
		t.Fatal(err)
	}
	data, err := tree.Pack()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if got := hex.EncodeToString(sum[:]); got != "4b1acc26bf75be92d0f47292cda6f2fe1a23f0ff6519dc5773471b21cbc07330" {
		t.Errorf("packed tree has digest %s", got)
	}
}

func TestFromFile(t *testing.T) {
	tree := FromFile("a.yaml", []byte("kind: A\n"))
	same, err := ReadArchive(bytes.NewReader(tarball(t, file{"x/a.yaml", "kind: A\n", 0})), "")
	if err != nil {
		t.Fatal(err)
	}
	if tree.Hash() != same.Hash() || !bytes.Equal(pack(t, tree), pack(t, same)) {
		t.Error("the tree of a file is not the tree with that file")
	}
}

func TestReadFolder(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	for _, err := range []error{
		os.WriteFile(secret, []byte("secret"), 0o644),
		os.WriteFile(filepath.Join(dir, "f"), []byte("f"), 0o644),
		os.Symlink(secret, filepath.Join(dir, "l")),
		os.Symlink(filepath.Dir(secret), filepath.Join(dir, "d")),
		os.WriteFile(filepath.Join(dir, ".git"), []byte("gitdir: elsewhere"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tree, err := ReadFolder(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	for name := range tree.Files() {
		if name != "f" {
			t.Errorf("has file %q", name)
		}
	}
	l := defaults
	l.entries = 2
	if _, err := readFolder(dir, "", l); !errors.Is(err, ErrRefused) {
		t.Errorf("many entries: got %v", err)
	}
	l = defaults
	l.file = 0
	if _, err := readFolder(dir, "", l); !errors.Is(err, ErrRefused) {
		t.Errorf("large file: got %v", err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFolder(dir, ""); !errors.Is(err, ErrRefused) {
		t.Errorf("pipe: got %v", err)
	}
	if _, err := ReadFolder(filepath.Join(dir, "none"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: got %v", err)
	}
}

func FuzzReadArchive(f *testing.F) {
	f.Add([]byte("\x1f\x8b\x08"))
	f.Add([]byte("\x28\xb5\x2f\xfd"))
	whole := tarball(f, file{"x/d/", "", tar.TypeDir}, file{"x/d/f", "f", 0}, file{"x/l", "d/../d/f", tar.TypeSymlink})
	f.Add(whole)
	f.Add(zip(f, whole))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := limits{entries: 100, links: 100, names: 1 << 16, unpacked: 1 << 20, kept: 1 << 20, file: 1 << 16}
		tree, err := readArchive(bytes.NewReader(data), "", l)
		if err != nil {
			return
		}
		packed, err := tree.Pack()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Open(bytes.NewReader(packed))
		if err != nil || again.Hash() != tree.Hash() {
			t.Fatalf("packed tree is another: %v", err)
		}
		for range tree.Files() {
		}
	})
}

func TestLinksNoNetwork(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Skip("no go to ask:", err)
	}
	for _, dep := range strings.Fields(string(out)) {
		if dep == "net/http" || dep == "net" || strings.HasPrefix(dep, "atoll/") && dep != "atoll/bundle/source" && dep != "atoll/bundle/bounds" {
			t.Errorf("links %s", dep)
		}
	}
}
