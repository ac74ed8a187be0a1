package bundle_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
	"atoll/bundle/bundletest"
)

func TestPackIsReproducible(t *testing.T) {
	f := bundletest.New(t)
	f.Lab(t)
	a, err := os.ReadFile(f.Pack(t))
	if err != nil {
		t.Fatal(err)
	}
	g := bundletest.New(t) // another store, filled in another order
	g.Lab(t)
	for i, j := 0, len(g.Lock.Images)-1; i < j; i, j = i+1, j-1 {
		g.Lock.Images[i], g.Lock.Images[j] = g.Lock.Images[j], g.Lock.Images[i]
	}
	b, err := os.ReadFile(g.Pack(t))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two bundles of one lock differ")
	}
}

func TestPackedBundle(t *testing.T) {
	f := bundletest.New(t)
	f.Lab(t)
	var done, total int64
	path := filepath.Join(t.TempDir(), "bundle.tar")
	err := bundle.Pack(t.Context(), path, f.Store, f.Lock, f.Artifacts(t), &bundle.PackOptions{
		Progress: func(d, n int64) {
			if d < done || d > n {
				t.Errorf("progress went from %d to %d of %d", done, d, n)
			}
			done, total = d, n
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if done != info.Size() || total != info.Size() {
		t.Errorf("progress ended at %d of %d, file has %d bytes", done, total, info.Size())
	}

	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Size() != info.Size() {
		t.Errorf("Size() = %d, file has %d", b.Size(), info.Size())
	}
	if err := b.Verify(t.Context(), nil); err != nil {
		t.Errorf("Verify: %v", err)
	}
	want := map[string]v1.Hash{}
	for _, im := range f.Lock.Images {
		want[im.Reference] = im.Digest
	}
	for _, im := range b.Images() {
		if want[im.Name] != im.Digest || im.Size == 0 || im.Manifest == (v1.Hash{}) {
			t.Errorf("image %+v, want digest %s", im, want[im.Name])
		}
		delete(want, im.Name)
		if pinned := strings.HasPrefix(im.Name, "quay.io/org/pinned@"); pinned != (im.Name != im.RefName) {
			t.Errorf("image %s is named %s in the index", im.Name, im.RefName)
		}
	}
	if len(want) > 0 {
		t.Errorf("images missing: %v", want)
	}
	l, err := b.Lock()
	if err != nil || len(l.Images) != len(f.Lock.Images) {
		t.Errorf("Lock() = %+v, %v", l, err)
	}
	p, err := b.Plan()
	if err != nil || p.Stack != "test" {
		t.Errorf("Plan() = %+v, %v", p, err)
	}
	r, file, err := b.File(bundle.ArtifactK3s, "k3s")
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(r); err != nil || string(data) != "k3s" || file.Size != 3 {
		t.Errorf("k3s holds %q (%+v), %v", data, file, err)
	}
	if _, _, err := b.File(bundle.ArtifactK3s, "k3z"); !errors.Is(err, bundle.ErrIncomplete) {
		t.Errorf("File of an unknown name: %v", err)
	}
	if len(b.Files()) != 5 || len(b.Artifacts()) != 4 {
		t.Errorf("%d files in %d artifacts", len(b.Files()), len(b.Artifacts()))
	}
}

// Of a multi-arch image only the wanted platform's layers are packed, even if the
// store has the others.
func TestPackLeavesOutOtherLayers(t *testing.T) {
	f := bundletest.New(t)
	index := bundletest.Index(t, "x")
	f.AddIndex(t, "docker.io/org/x:1", index)
	arm := bundletest.Image(t, v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, "x linux/arm64/v8")
	f.AddImage(t, "docker.io/org/arm:1", arm)
	f.Lock.Images = f.Lock.Images[:1]
	b, err := bundle.Open(f.Pack(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	m, err := arm.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Blob(m.Config.Digest); !ok {
		t.Error("config of another platform is missing")
	}
	if _, ok := b.Blob(m.Layers[0].Digest); ok {
		t.Error("layer of another platform was packed")
	}
}

func TestPackMissing(t *testing.T) {
	f := bundletest.New(t)
	f.Lab(t)
	artifacts := f.Artifacts(t)
	manifests := map[v1.Hash]bool{}
	for _, im := range f.Lock.Images {
		manifests[im.Digest], manifests[im.Manifest] = true, true
	}
	shared, missed := 0, 0
	blobs, err := filepath.Glob(filepath.Join(filepath.Dir(f.Store.Path(f.Lock.Images[0].Digest)), "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range blobs {
		if err := os.Rename(blob, blob+".away"); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "bundle.tar")
		err := bundle.Pack(t.Context(), path, f.Store, f.Lock, artifacts, nil)
		if err == nil {
			shared++ // of another platform
		} else if missed++; !errors.Is(err, bundle.ErrIncomplete) || !strings.Contains(err.Error(), filepath.Base(blob)) {
			t.Errorf("without %s: %v", filepath.Base(blob), err)
		} else if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) > 0 {
			t.Errorf("failed pack left %v", entries)
		} else if manifests[v1.Hash{Algorithm: "sha256", Hex: filepath.Base(blob)}] && !strings.Contains(err.Error(), ".io/") && !strings.Contains(err.Error(), "registry.example") {
			t.Errorf("error does not name the image: %v", err)
		}
		if err := os.Rename(blob+".away", blob); err != nil {
			t.Fatal(err)
		}
	}
	// Of four indexes: manifests and configs of arm64 and of the attestation, and the
	// index in the index, which leads to the wanted manifest (counted as missed).
	if shared != 4*4 {
		t.Errorf("%d blobs may be absent, %d may not; want 16 that may", shared, missed)
	}
}

func TestPackCorruptStore(t *testing.T) {
	f := bundletest.New(t)
	random := make([]byte, 1<<20) // does not shrink: large enough for the store to remember it
	rand.NewChaCha8([32]byte{}).Read(random)
	img := bundletest.Image(t, bundletest.Platform, string(random))
	f.AddImage(t, "docker.io/org/x:1", img)
	artifacts := f.Artifacts(t)
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bundle.tar")
	if err := os.WriteFile(path, []byte("earlier"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]v1.Hash{"config": m.Config.Digest, "layer": m.Layers[0].Digest, "file": artifacts[3].Files[0].Digest} {
		good, err := os.ReadFile(f.Store.Path(h))
		if err != nil {
			t.Fatal(err)
		}
		for damage, bad := range map[string][]byte{"flipped": flip(good, len(good)/2), "cut": good[:len(good)-1], "longer": append(bytes.Clone(good), 'x')} {
			info, err := os.Stat(f.Store.Path(h))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f.Store.Path(h), bad, 0o644); err != nil {
				t.Fatal(err)
			}
			// A disk gone bad changes no time.
			if err := os.Chtimes(f.Store.Path(h), info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
			err = bundle.Pack(t.Context(), path, f.Store, f.Lock, artifacts, nil)
			var corrupt *bundle.CorruptError
			if !errors.As(err, &corrupt) || corrupt.Want != h {
				t.Errorf("%s %s: %v", name, damage, err)
			}
			if data, err := os.ReadFile(path); err != nil || string(data) != "earlier" {
				t.Fatalf("%s %s: the earlier bundle is gone", name, damage)
			}
			if ok, err := f.Store.Has(t.Context(), h, int64(len(good))); ok || err != nil {
				t.Errorf("%s %s: store still trusts the blob: %v %v", name, damage, ok, err)
			}
			f.Put(t, good)
		}
	}
}

func TestPackCancel(t *testing.T) {
	f := bundletest.New(t)
	f.Lab(t)
	ctx, cancel := context.WithCancel(t.Context())
	path := filepath.Join(t.TempDir(), "bundle.tar")
	err := bundle.Pack(ctx, path, f.Store, f.Lock, f.Artifacts(t), &bundle.PackOptions{
		Progress: func(done, total int64) {
			if done > total/2 {
				cancel()
			}
		},
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled pack: %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) > 0 {
		t.Errorf("cancelled pack left %v", entries)
	}
}

func TestPackMistakes(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*bundletest.Fixture, []bundle.Artifact) []bundle.Artifact
		want  string
	}{
		"no lock": {func(_ *bundletest.Fixture, a []bundle.Artifact) []bundle.Artifact { return a[1:] }, "with this lock"},
		"another lock": {func(f *bundletest.Fixture, a []bundle.Artifact) []bundle.Artifact {
			f.Lock.Platform = "linux/arm64"
			return a
		}, "with this lock"},
		"one name twice": {func(f *bundletest.Fixture, a []bundle.Artifact) []bundle.Artifact {
			f.Lock.Images[1].Reference = f.Lock.Images[0].Reference
			return a
		}, "locked as"},
		"manifest of another image": {func(f *bundletest.Fixture, a []bundle.Artifact) []bundle.Artifact {
			f.Lock.Images[1].Manifest = f.Lock.Images[0].Manifest
			return a
		}, "does not list manifest"},
		"two files of a name": {func(_ *bundletest.Fixture, a []bundle.Artifact) []bundle.Artifact {
			a[3].Files[1].Name = a[3].Files[0].Name
			return a
		}, "unique name"},
		"image that is none": {func(f *bundletest.Fixture, a []bundle.Artifact) []bundle.Artifact {
			f.Lock.Images[0].Digest = a[1].Files[0].Digest
			return a
		}, "neither an image nor an index"},
	} {
		f := bundletest.New(t)
		f.Lab(t)
		err := bundle.Pack(t.Context(), filepath.Join(t.TempDir(), "b"), f.Store, f.Lock, test.spoil(f, f.Artifacts(t)), nil)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A bundle can be read by tar, with no complaint, even off a larger partition.
func TestPackGNUTar(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("no tar")
	}
	f := bundletest.New(t)
	f.Lab(t)
	path := f.Pack(t)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(data, bytes.Repeat([]byte{0xff}, 1<<20)...), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tar", "-tvf", path).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("tar:")) {
		t.Errorf("tar: %v\n%s", err, out)
	}
	h := f.Artifacts(t)[2].Files[0].Digest
	out, err = exec.Command("tar", "-xOf", path, "blobs/sha256/"+h.Hex).CombinedOutput()
	if err != nil || string(out) != "atoll" {
		t.Errorf("tar -x: %v\n%s", err, out)
	}
}

// A size that a plain header cannot hold takes more blocks of the tar, and the size
// told before the first byte has to know.
func TestPackDiskFull(t *testing.T) {
	f := bundletest.New(t)
	f.AddImage(t, "docker.io/org/x:1", bundletest.Image(t, bundletest.Platform, "x"))
	artifacts := f.Artifacts(t)
	huge := bundle.DigestOf([]byte("huge"))
	sparse, err := os.Create(f.Store.Path(huge))
	if err != nil {
		t.Fatal(err)
	}
	defer sparse.Close()
	const size = 1 << 43 // 8 TiB
	if err := sparse.Truncate(size); err != nil {
		t.Skip("file system takes no file of 8 TiB:", err)
	}
	artifacts[3].Files = append(artifacts[3].Files, bundle.File{Name: "huge", Digest: huge, Size: size})
	path := filepath.Join(t.TempDir(), "bundle.tar")
	err = bundle.Pack(t.Context(), path, f.Store, f.Lock, artifacts, nil)
	if err == nil || !strings.Contains(err.Error(), "8388609 MiB needed") {
		t.Errorf("disk full: %v", err)
	}
}

func flip(data []byte, i int) []byte {
	data = bytes.Clone(data)
	data[i] ^= 1
	return data
}

// members lists a tar's members with their contents.
func members(t testing.TB, path string) (list []*tar.Header, data map[string][]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data = map[string][]byte{}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return list, data
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, h)
		if data[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}
