package bundle_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
	"atoll/bundle/bundletest"
)

// verify opens and verifies a bundle of these bytes.
func verify(t testing.TB, path string, data []byte) error {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(path)
	if err != nil {
		return err
	}
	defer b.Close()
	return b.Verify(t.Context(), nil)
}

func small(t testing.TB) (path string, data []byte) {
	t.Helper()
	f := bundletest.New(t)
	f.AddIndex(t, "docker.io/org/x@DIGEST", bundletest.Index(t, "x"))
	f.AddImage(t, "docker.io/library/busybox:1.28", bundletest.Image(t, bundletest.Platform, "busybox"))
	path = f.Pack(t)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, data
}

// Every flipped byte is found by Verify, but for those that mean nothing to atoll:
// padding, and fields of index.json and of the tar's headers that only other tools read.
func TestVerifyFindsFlippedBytes(t *testing.T) {
	path, data := small(t)
	want := inspect(t, path)
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	inBlob := make([]bool, len(data))
	list, _ := members(t, path)
	for _, h := range list[2:] {
		offset, size, ok := b.Section(v1.Hash{Algorithm: "sha256", Hex: filepath.Base(h.Name)})
		if !ok {
			t.Fatal("no section of", h.Name)
		}
		for i := range size {
			inBlob[offset+i] = true
		}
	}
	scratch := filepath.Join(t.TempDir(), "flipped")
	tried := map[bool]int{}
	for i := 0; i < len(data); i++ {
		if inBlob[i] && i%31 > 0 || !inBlob[i] && (data[i] == 0 || i > 6000 || i%3 > 0) {
			continue
		}
		tried[inBlob[i]]++
		bad := bytes.Clone(data)
		bad[i] ^= 0x11
		err := verify(t, scratch, bad)
		var corrupt *bundle.CorruptError
		if inBlob[i] && !errors.As(err, &corrupt) {
			t.Fatalf("flipped byte %d of a blob: %v", i, err)
		}
		if err == nil && inspect(t, scratch) != want {
			t.Errorf("flipped byte %d (%q) went unseen", i, data[max(0, i-20):i+20])
		}
	}
	if tried[true] < 50 || tried[false] < 500 {
		t.Errorf("tried %d bytes of blobs and %d others", tried[true], tried[false])
	}
}

// inspect is all that a bundle says of itself.
func inspect(t *testing.T, path string) string {
	t.Helper()
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	data, err := json.Marshal([]any{b.Images(), b.Artifacts()})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestVerifyNamesEachBadBlob(t *testing.T) {
	path, data := small(t)
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	list, _ := members(t, path)
	bad := bytes.Clone(data)
	want := map[v1.Hash]bool{}
	for i, h := range list[2:] { // every third blob, and all of the lock's
		digest := v1.Hash{Algorithm: "sha256", Hex: filepath.Base(h.Name)}
		if offset, _, _ := b.Section(digest); i%3 == 0 || digest == b.Artifacts()[1].Files[0].Digest {
			bad[offset] ^= 1
			want[digest] = true
		}
	}
	got := corrupted(verify(t, filepath.Join(t.TempDir(), "bad"), bad))
	if len(want) < 4 || len(got) != len(want) {
		t.Errorf("%d bad blobs, told of %d", len(want), len(got))
	}
	for h := range want {
		if !slices.Contains(got, h) {
			t.Errorf("not told of %s", h)
		}
	}
}

// corrupted lists the digests of all the CorruptErrors of an error.
func corrupted(err error) []v1.Hash {
	if c, ok := err.(*bundle.CorruptError); ok {
		return []v1.Hash{c.Want}
	}
	var list []v1.Hash
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		list = corrupted(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			list = append(list, corrupted(err)...)
		}
	}
	return list
}

func TestOpenTruncated(t *testing.T) {
	_, data := small(t)
	path := filepath.Join(t.TempDir(), "cut")
	for n := 0; n < len(data); n += 256 {
		if err := os.WriteFile(path, data[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		b, err := bundle.Open(path)
		if err == nil {
			b.Close()
			t.Fatalf("opened %d of %d bytes", n, len(data))
		}
		if n >= 2048 && !errors.Is(err, bundle.ErrIncomplete) {
			t.Fatalf("%d of %d bytes: %v", n, len(data), err)
		}
	}
}

func TestOpenIgnoresWhatFollows(t *testing.T) {
	path, data := small(t)
	want := int64(len(data))
	for _, tail := range [][]byte{{1}, bytes.Repeat([]byte{0}, 700), bytes.Repeat([]byte{0xff}, 5000), data} {
		if err := os.WriteFile(path, append(bytes.Clone(data), tail...), 0o644); err != nil {
			t.Fatal(err)
		}
		b, err := bundle.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if n, err := b.CopyTo(t.Context(), &out, nil); err != nil || n != want || b.Size() != want || !bytes.Equal(out.Bytes(), data) {
			t.Errorf("copied %d of %d bytes, %v", n, want, err)
		}
		b.Close()
	}
}

func TestCopyTo(t *testing.T) {
	path, data := small(t)
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := b.CopyTo(ctx, io.Discard, func(done, _ int64) {
		if done > 0 {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	full := errors.New("disk full")
	if _, err := b.CopyTo(t.Context(), refusing{full}, nil); !errors.Is(err, full) {
		t.Errorf("failing writer: %v", err)
	}
	// Cut under an open bundle.
	if err := os.Truncate(path, int64(len(data)/2)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CopyTo(t.Context(), io.Discard, nil); !errors.Is(err, bundle.ErrIncomplete) {
		t.Errorf("cut while open: %v", err)
	}
}

type refusing struct{ err error }

func (r refusing) Write([]byte) (int, error) { return 0, r.err }

// A bundle whose blobs are all right, but with something left out or exchanged, is
// not whole.
func TestVerifyIncomplete(t *testing.T) {
	f := bundletest.New(t)
	f.Lab(t)
	path := f.Pack(t)
	list, data := members(t, path)
	optional := 0
	for _, without := range list[2:] {
		var files []file
		for _, h := range list {
			if h != without {
				files = append(files, file{h.Name, string(data[h.Name])})
			}
		}
		err := verify(t, filepath.Join(t.TempDir(), "b"), makeTar(t, files...))
		if err == nil {
			optional++
		} else if !errors.Is(err, bundle.ErrIncomplete) || !strings.Contains(err.Error(), filepath.Base(without.Name)) {
			t.Errorf("without %s: %v", without.Name, err)
		}
	}
	if optional != 4*4+1 { // manifest and config of arm64 and attestation of four indexes; the empty config
		t.Errorf("%d blobs are not missed, want 17", optional)
	}
}

// change packs a bundle's members anew after a change of index.json and root index. A root
// index that the change left alone stays as it is, with its digest.
func change(t testing.TB, path string, edit func(top, root *v1.IndexManifest)) []byte {
	t.Helper()
	list, data := members(t, path)
	var top, root v1.IndexManifest
	if err := json.Unmarshal(data["index.json"], &top); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(top.Manifests, func(d v1.Descriptor) bool { return d.ArtifactType == "application/vnd.atoll.bundle.v1" })
	old := top.Manifests[at]
	oldName := "blobs/sha256/" + old.Digest.Hex
	if err := json.Unmarshal(data[oldName], &root); err != nil {
		t.Fatal(err)
	}
	edit(&top, &root)
	encode := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	rootData := encode(root)
	now := bundle.DigestOf([]byte(rootData))
	for i := range top.Manifests {
		if d := &top.Manifests[i]; d.Digest == old.Digest {
			d.Digest, d.Size = now, int64(len(rootData))
		}
	}
	var files []file
	for _, h := range list {
		switch h.Name {
		case "index.json":
			files = append(files, file{h.Name, encode(top)})
		case oldName:
			files = append(files, file{"blobs/sha256/" + now.Hex, rootData})
		default:
			files = append(files, file{h.Name, string(data[h.Name])})
		}
	}
	slices.SortStableFunc(files[2:], func(a, b file) int { return strings.Compare(a.name, b.name) })
	return makeTar(t, files...)
}

// What index.json and root index say must agree, and fit the lock.
func TestVerifyIndexes(t *testing.T) {
	path, _ := small(t)
	// Image 0 is busybox, image 1 is x, then come the artifacts, k3s first.
	rename := func(m *v1.IndexManifest) {
		m.Manifests[0].Annotations["org.opencontainers.image.ref.name"] = "docker.io/library/busybox:1.29"
		m.Manifests[0].Annotations["io.containerd.image.name"] = "docker.io/library/busybox:1.29"
	}
	for name, test := range map[string]struct {
		edit      func(*v1.IndexManifest)
		top, both string // what is told of a change of index.json alone, and of both
	}{
		"image left out":    {func(m *v1.IndexManifest) { m.Manifests = m.Manifests[1:] }, "busybox:1.28 is in the root index but not in index.json", "locked but not in the root index"},
		"image twice":       {func(m *v1.IndexManifest) { m.Manifests = append(m.Manifests, m.Manifests[0]) }, "in index.json twice", "another's"},
		"renamed":           {rename, "busybox:1.29 is in index.json but not in the root index", "in the root index but not locked"},
		"tag exchanged":     {func(m *v1.IndexManifest) { m.Manifests[0].Digest = m.Manifests[1].Digest }, "in index.json, sha256:", "in the lock"},
		"artifact left out": {func(m *v1.IndexManifest) { m.Manifests = slices.Delete(m.Manifests, 2, 6) }, "not in index.json", "no such file"},
		"retyped artifact":  {func(m *v1.IndexManifest) { m.Manifests[2].ArtifactType = "application/x" }, "application/x (sha256:", "the index says"},
		"wrong size":        {func(m *v1.IndexManifest) { m.Manifests[0].Size++ }, "described otherwise", "its manifest says"},
		"annotated":         {func(m *v1.IndexManifest) { m.Manifests[0].Annotations["x"] = "y" }, "described otherwise", ""},
	} {
		for _, both := range []bool{false, true} {
			data := change(t, path, func(top, root *v1.IndexManifest) {
				test.edit(top)
				if both {
					test.edit(root)
				}
			})
			want := test.top
			if both {
				want = test.both
			}
			err := verify(t, filepath.Join(t.TempDir(), "b"), data)
			if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, both %v: %v, want %q", name, both, err, want)
			}
		}
	}
	for name, test := range map[string]struct {
		edit func(top, root *v1.IndexManifest)
		want string
	}{
		"no root":      {func(top, _ *v1.IndexManifest) { top.Manifests = top.Manifests[:6] }, "has no root index"},
		"two roots":    {func(top, _ *v1.IndexManifest) { top.Manifests = append(top.Manifests, top.Manifests[6]) }, "two root indexes"},
		"another type": {func(_, root *v1.IndexManifest) { root.ArtifactType = "application/x" }, "not what this atoll reads"},
		"version":      {func(_, root *v1.IndexManifest) { root.SchemaVersion = 3 }, "not what this atoll reads"},
		"no digest":    {func(_, root *v1.IndexManifest) { root.Manifests[0].Digest = v1.Hash{Algorithm: "sha256", Hex: "a"} }, "parsing the root index"},
		"nameless":     {func(_, root *v1.IndexManifest) { root.Manifests[0].Annotations = nil }, "has no name"},
		"two names":    {func(_, root *v1.IndexManifest) { delete(root.Manifests[0].Annotations, "io.containerd.image.name") }, "has no name"},
		"called image": {func(top, _ *v1.IndexManifest) { top.Manifests[6].MediaType = "application/x" }, "otherwise than it is"},
	} {
		if err := verify(t, filepath.Join(t.TempDir(), "b"), change(t, path, test.edit)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestOpenIn(t *testing.T) {
	fx := bundletest.New(t)
	fx.Lab(t)
	whole, err := os.ReadFile(fx.Pack(t))
	if err != nil {
		t.Fatal(err)
	}
	const before = 12345
	path := filepath.Join(t.TempDir(), "image")
	data := append(append(bytes.Repeat([]byte("before"), before)[:before], whole...), "after, and no part of it"...)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := bundle.OpenIn(f, before, int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := b.CopyTo(t.Context(), &out, nil); err != nil || !bytes.Equal(out.Bytes(), whole) {
		t.Errorf("the bundle is not read as it is: %d bytes, %v", out.Len(), err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Stat(); err != nil {
		t.Errorf("the file was closed with the bundle: %v", err)
	}
	if _, err := bundle.OpenIn(f, before, int64(len(whole)-2000)); !errors.Is(err, bundle.ErrIncomplete) {
		t.Errorf("cut short: got %v, want ErrIncomplete", err)
	}
}
