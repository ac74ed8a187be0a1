package sbom

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"atoll/bundle/bundletest"

	"atoll/bundle/bounds"
)

func read(data []byte) (*deb, error) {
	return readDeb(context.Background(), bytes.NewReader(data), int64(len(data)))
}

func symlink(name, to string) bundletest.Member {
	return bundletest.Member{Header: tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}}
}

func TestReadDeb(t *testing.T) {
	const text = "Format: x\n"
	folder := bundletest.Member{Header: tar.Header{Name: "./usr/share/doc/hello/", Mode: 0o755, Typeflag: tar.TypeDir}}
	for name, test := range map[string]struct {
		files []bundletest.Member
		want  deb
	}{
		"a file":            {[]bundletest.Member{folder, bundletest.Copyright("hello", text)}, deb{Copyright: text}},
		"without ./":        {[]bundletest.Member{bundletest.File("usr/share/doc/hello/copyright", text)}, deb{Copyright: text}},
		"none":              {[]bundletest.Member{folder}, deb{Lack: "it has no copyright file"}},
		"another's":         {[]bundletest.Member{bundletest.Copyright("hello2", text)}, deb{Lack: "it has no copyright file"}},
		"a link":            {[]bundletest.Member{symlink("./usr/share/doc/hello/copyright", "../hello-common/copyright")}, deb{Link: "/usr/share/doc/hello-common/copyright"}},
		"an absolute link":  {[]bundletest.Member{symlink("./usr/share/doc/hello/copyright", "/usr/share/doc/x/copyright")}, deb{Link: "/usr/share/doc/x/copyright"}},
		"a folder's link":   {[]bundletest.Member{symlink("./usr/share/doc/hello", "hello-common")}, deb{Link: "/usr/share/doc/hello-common/copyright"}},
		"a link far out":    {[]bundletest.Member{symlink("./usr/share/doc/hello/copyright", "../../../../../../etc/shadow")}, deb{Link: "/etc/shadow"}},
		"a folder of it":    {[]bundletest.Member{{Header: tar.Header{Name: "./usr/share/doc/hello/copyright", Typeflag: tar.TypeDir}}}, deb{Lack: "it has no copyright file"}},
		"too large":         {[]bundletest.Member{bundletest.Copyright("hello", strings.Repeat(" ", bounds.Copyright+1))}, deb{Lack: "its copyright file has more than 4194304 bytes"}},
		"no UTF-8":          {[]bundletest.Member{bundletest.Copyright("hello", "caf\xe9")}, deb{Copyright: "caf\uFFFD"}},
		"dots in its name":  {[]bundletest.Member{bundletest.File("./usr/share/../share/doc/hello/copyright", text)}, deb{Copyright: text}},
		"a file and a link": {[]bundletest.Member{symlink("./usr/share/doc/hello", "x"), bundletest.Copyright("hello", text)}, deb{Copyright: text}},
	} {
		test.want.Package, test.want.Version, test.want.Architecture = "hello", "1:2.0-1", "amd64"
		d, err := read(bundletest.Deb("hello", "1:2.0-1", test.files...))
		if err != nil || *d != test.want {
			t.Errorf("%s: got %+v (%v), want %+v", name, d, err, test.want)
		}
	}
}

// Every way in which dpkg-deb compresses is read.
func TestReadDebOfDpkg(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	doc := filepath.Join(root, "usr/share/doc/hello")
	for _, dir := range []string{doc, filepath.Join(root, "DEBIAN")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.Repeat("words, and more words\n", 1<<15)
	write := func(path, data string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(doc, "copyright"), text)
	write(filepath.Join(root, "DEBIAN/control"), "Package: hello\nVersion: 1\nSource: greetings (2)\nArchitecture: all\nMaintainer: n <n@example.test>\nDescription: d\n long\n")
	for _, z := range []string{"-Zgzip", "-Zxz", "-Zxz -z9 -Sextreme", "-Zzstd", "-Znone", "-Zxz --no-uniform-compression"} {
		path := filepath.Join(t.TempDir(), "hello.deb")
		args := append(strings.Fields(z), "--root-owner-group", "--build", root, path)
		if out, err := exec.Command("dpkg-deb", args...).CombinedOutput(); err != nil {
			if strings.Contains(string(out), "unknown compression") {
				continue // zstd came to Debian's dpkg late
			}
			t.Fatalf("%v\n%s", err, out)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d, err := read(data)
		if err != nil || d.Copyright != text || d.Source != "greetings (2)" || d.Architecture != "all" {
			t.Errorf("dpkg-deb %s: got %.80v (%v)", z, d, err)
		}
	}
}

// What is no package, or not all of one, is an error.
func TestReadDebDamaged(t *testing.T) {
	control := bundletest.File("control.tar.gz", gzipped(t, bundletest.Tar(bundletest.File("./control", "Package: hello\n"))))
	whole := bundletest.Ar(control, bundletest.File("data.tar.gz", gzipped(t, bundletest.Tar(bundletest.Copyright("hello", "Format: x\n")))))
	for n := range len(whole) - 1 { // the last byte makes its length even
		if d, err := read(whole[:n]); err == nil {
			t.Fatalf("%d of %d bytes are read: %+v", n, len(whole), d)
		}
	}
	data := bundletest.File("data.tar", bundletest.Tar())
	for name, test := range map[string]struct {
		deb  []byte
		want string
	}{
		"text":              {[]byte("the package hello"), "does not begin as an ar archive"},
		"no members":        {bundletest.Ar(), "no control.tar or no data.tar"},
		"no control":        {bundletest.Ar(data), "no control.tar or no data.tar"},
		"no data":           {bundletest.Ar(control), "no control.tar or no data.tar"},
		"data first":        {bundletest.Ar(data, control), "no control.tar or no data.tar"},
		"odd compression":   {bundletest.Ar(control, bundletest.File("data.tar.lz", "x")), `compressed as ".lz"`},
		"not compressed so": {bundletest.Ar(control, bundletest.File("data.tar.xz", "xxxxxxxxxxxxxxxx")), "data.tar.xz: xz: file format not recognized"},
		"no zstd":           {bundletest.Ar(control, bundletest.File("data.tar.zst", "xxxxxxxxxxxxxxxx")), "magic number mismatch"},
		"no tar":            {bundletest.Ar(control, bundletest.File("data.tar", strings.Repeat("x", 1024))), "archive/tar: invalid tar header"},
		"no fields":         {bundletest.Ar(bundletest.File("control.tar", bundletest.Tar(bundletest.File("control", "words\n"))), data), "no list of fields"},
		"two lists":         {bundletest.Ar(bundletest.File("control.tar", bundletest.Tar(bundletest.File("control", "A: b\n\nC: d\n"))), data), "no list of fields"},
		"no file control":   {bundletest.Ar(bundletest.File("control.tar", bundletest.Tar(bundletest.File("x", ""))), data), "has no file control"},
	} {
		if d, err := read(test.deb); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %+v, %v; want %q", name, d, err, test.want)
		}
	}
}

func gzipped(t testing.TB, data string) string {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// zeros is n bytes of nothing, compressed.
func zeros(t testing.TB, n int64) string {
	t.Helper()
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, zstd.WithWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(w)
	if err := tw.WriteHeader(&tar.Header{Name: "./bomb", Size: n}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(tw, nothing{}, n); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

type nothing struct{}

func (nothing) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A package that unpacks to more than is believed is read so far, in little memory.
func TestReadDebBomb(t *testing.T) {
	bomb := zeros(t, 1<<30)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d := &deb{Package: "bomb"}
	if err := d.readData(t.Context(), strings.NewReader(bomb), ".zst", 1<<29); err != nil || d.Lack != "no copyright file in the first 536870912 bytes of its files" {
		t.Errorf("got %+v, %v", d, err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
		t.Errorf("a bomb of %d bytes takes %d of memory", len(bomb), grown)
	}
	// As the package's own fields it is no package.
	if _, err := read(bundletest.Ar(bundletest.File("control.tar.zst", bomb), bundletest.File("data.tar", ""))); !errors.Is(err, errTooLarge) {
		t.Errorf("a bomb of a control.tar: %v", err)
	}
	// An end of patience ends it.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.readData(ctx, strings.NewReader(bomb), ".zst", 1<<40); !errors.Is(err, context.Canceled) {
		t.Errorf("when interrupted: %v", err)
	}
}

// The memory that a decompressor is told to take is bounded.
func TestReadDebWindow(t *testing.T) {
	xz, err := exec.LookPath("xz")
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(xz, "--lzma2=dict=512MiB", "-T1", "-c")
	cmd.Stdin = strings.NewReader(bundletest.Tar(bundletest.Copyright("hello", "x")))
	out, err := cmd.Output()
	if err != nil {
		t.Skip("xz has too little memory itself:", err)
	}
	d := &deb{Package: "hello"}
	if err := d.readData(t.Context(), bytes.NewReader(out), ".xz", 1<<30); err == nil || !strings.Contains(err.Error(), "dictionary size exceeds max") {
		t.Errorf("a dictionary of 512 MiB: %v", err)
	}
	// A frame of zstd whose head wants a window of 2 GiB.
	frame := "\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00"
	if err := d.readData(t.Context(), strings.NewReader(frame), ".zst", 1<<30); err == nil || !strings.Contains(err.Error(), "window") {
		t.Errorf("a window of 2 GiB: %v", err)
	}
}

// Decompressors keep state between inputs, so that the same one may seem new: fuzz with
// -fuzzminimizetime 10x, or all the time goes into making such inputs small.
func FuzzDeb(f *testing.F) {
	f.Add(bundletest.Deb("hello", "1", bundletest.Copyright("hello", "Format: x\n")))
	f.Add(bundletest.Deb("hello", "1", symlink("./usr/share/doc/hello", "hello")))
	f.Add(bundletest.Ar(bundletest.File("control.tar.xz", "\xfd7zXZ\x00\x00"), bundletest.File("data.tar.zst", "\x28\xb5\x2f\xfd")))
	f.Add(bundletest.Ar(bundletest.File("control.tar", bundletest.Tar(bundletest.File("control", "Package: x\n"))), bundletest.File("data.tar.bz2", "BZh9")))
	f.Add([]byte("!<arch>\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := read(data)
		if err == nil && d.Copyright != "" && d.Lack != "" {
			t.Errorf("%+v", d)
		}
		if err == nil && d.Link != "" && !strings.HasPrefix(d.Link, "/") {
			t.Errorf("link %q", d.Link)
		}
	})
}

func TestCopyrightOf(t *testing.T) {
	all := map[string]*deb{
		"a":     {Copyright: "text"},
		"b":     {Link: docs + "/a/copyright"},
		"c":     {Link: docs + "/b/copyright"},
		"away":  {Link: "/etc/shadow"},
		"gone":  {Link: docs + "/none/copyright"},
		"loop":  {Link: docs + "/pool/copyright"},
		"pool":  {Link: docs + "/loop/copyright"},
		"empty": {Lack: "it has no copyright file"},
	}
	for name, want := range map[string]string{
		"a": "text", "b": "text", "c": "text", "empty": "no copyright file",
		"away": `a link to "/etc/shadow"`, "gone": "no locked package", "loop": "leads nowhere",
	} {
		text, err := copyrightOf(all[name], all)
		if got := fmt.Sprint(text, err); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
