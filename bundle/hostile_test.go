package bundle_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
)

// file is a member of a hand-made tar.
type file struct {
	name string
	data string
}

func makeTar(t testing.TB, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.data)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// A hostile bundle is an error and takes little memory.
func TestOpenHostile(t *testing.T) {
	layout := file{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`}
	empty := file{"index.json", `{"schemaVersion":2,"manifests":[]}`}
	blob := func(data string) file {
		return file{"blobs/sha256/" + bundle.DigestOf([]byte(data)).Hex, data}
	}
	rooted := func(hex string) file {
		return file{"index.json", `{"schemaVersion":2,"manifests":[{"artifactType":"application/vnd.atoll.bundle.v1","digest":"sha256:` + hex + `"}]}`}
	}
	commas := `{"manifests":[` + strings.Repeat("0,", 2<<20-10) + "0]}"
	var many []file
	for i := range 1<<17 + 1 {
		many = append(many, file{fmt.Sprintf("blobs/sha256/%064x", i), ""})
	}
	huge := makeTar(t, layout, file{"index.json", "{}"})
	copy(huge[1024+124:], "77777777777\x00") // 8 GiB
	sum(huge[1024:1536])
	negative := bytes.Clone(huge)
	copy(negative[1024+124:], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
	sum(negative[1024:1536])
	var sparse bytes.Buffer
	w := tar.NewWriter(&sparse)
	w.WriteHeader(&tar.Header{Name: layout.name, Size: int64(len(layout.data))})
	io.WriteString(w, layout.data)
	w.WriteHeader(&tar.Header{Name: "index.json", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"})
	w.Close()
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"empty":              {nil, "not an OCI layout"},
		"text":               {bytes.Repeat([]byte("not a tar\n"), 1000), "reading member 1"},
		"no members":         {makeTar(t), "not an OCI layout"},
		"no index":           {makeTar(t, layout), "not an OCI layout"},
		"blob first":         {makeTar(t, blob("x"), layout, empty), "not an OCI layout"},
		"path outside":       {makeTar(t, layout, empty, file{"../evil", ""}), "does not belong"},
		"path outside blobs": {makeTar(t, layout, empty, file{"blobs/sha256/../../evil", ""}), "does not belong"},
		"upper case":         {makeTar(t, layout, empty, file{"blobs/sha256/" + strings.Repeat("A", 64), ""}), "does not belong"},
		"blob twice":         {makeTar(t, layout, empty, blob("x"), blob("x")), "twice"},
		"index twice":        {makeTar(t, layout, empty, empty), "does not belong"},
		"symlink":            {sparse.Bytes(), "no plain file"},
		"size beyond":        {huge, "incomplete"},
		"negative size":      {negative, "reading member 2"},
		"large index":        {makeTar(t, layout, file{"index.json", strings.Repeat(" ", 4<<20+1)}), "more than 4194304"},
		"many commas":        {makeTar(t, layout, file{"index.json", commas}), "elements"},
		"deep":               {makeTar(t, layout, file{"index.json", strings.Repeat("[", 4<<20)}), "parsing index.json"},
		"no JSON":            {makeTar(t, layout, file{"index.json", "{"}), "parsing index.json"},
		"no root":            {makeTar(t, layout, file{"index.json", `{"schemaVersion":2,"manifests":[{}]}`}), "has no root index"},
		"no digest":          {makeTar(t, layout, file{"index.json", `{"schemaVersion":2,"manifests":[{"artifactType":"application/vnd.atoll.bundle.v1"}]}`}), "no sha256 digest"},
		"root missing":       {makeTar(t, layout, rooted(strings.Repeat("a", 64))), "is missing"},
		"many in root":       {makeTar(t, layout, rooted(bundle.DigestOf([]byte(commas)).Hex), blob(commas)), "elements"},
		"many members":       {makeTar(t, append([]file{layout, empty}, many...)...), "more than 131072 members"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "hostile")
			if err := os.WriteFile(path, test.data, 0o644); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := bundle.Open(path)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Open: %v, want %q", err, test.want)
			}
			if used := int64(after.TotalAlloc-before.TotalAlloc) >> 20; used > 500 { // in all, not at once: most is headers of many small members
				t.Errorf("Open allocated %d MiB", used)
			}
		})
	}
	if _, err := bundle.Open(t.TempDir()); err == nil {
		t.Error("opened a folder")
	}
	// A well-formed layout that holds no lock opens, and is no whole bundle.
	bare := `{"schemaVersion":2,"artifactType":"application/vnd.atoll.bundle.v1","manifests":[]}`
	if err := verify(t, filepath.Join(t.TempDir(), "bare"), makeTar(t, layout, rooted(bundle.DigestOf([]byte(bare)).Hex), blob(bare))); !errors.Is(err, bundle.ErrIncomplete) {
		t.Errorf("bundle without a lock: %v", err)
	}
}

// sum mends a tar header's checksum.
func sum(header []byte) {
	copy(header[148:156], "        ")
	n := 0
	for _, b := range header {
		n += int(b)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", n))
}

func FuzzOpen(f *testing.F) {
	path, data := small(f)
	f.Add(data)
	f.Add(data[:3000])
	key := newKey(f)
	if err := bundle.Sign(f.Context(), path, &bundle.PackOptions{Key: key}); err != nil {
		f.Fatal(err)
	}
	signed := read(f, path)
	digest, err := open(f, signed, bundle.Trust{Key: key.Public()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add(change(f, path, func(top, _ *v1.IndexManifest) { top.Manifests[0].Digest = top.Manifests[1].Digest }))
	f.Fuzz(func(t *testing.T, data []byte) {
		verify(t, filepath.Join(t.TempDir(), "b"), data) // must not panic
		if got, err := open(t, data, bundle.Trust{Key: key.Public()}); err == nil && got != digest {
			t.Errorf("took bundle %s, which nobody signed", got)
		}
	})
}
