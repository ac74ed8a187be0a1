// Package bundletest makes small real images, stores and bundles for tests.
package bundletest

import (
	"archive/tar"
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle"
)

// Platform is what the images of a fixture are wanted for.
var Platform = v1.Platform{OS: "linux", Architecture: "amd64"}

// A Fixture is a store with a lock and artifacts that fit it.
type Fixture struct {
	Store *bundle.Store
	Lock  *bundle.Lock
}

// New makes a fixture with an empty store, and a lock that names nothing yet.
func New(t testing.TB) *Fixture {
	t.Helper()
	s, err := bundle.OpenStore(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return &Fixture{Store: s, Lock: &bundle.Lock{
		Version:    1,
		Definition: bundle.DigestOf([]byte("definition")),
		Manifests:  bundle.DigestOf([]byte("manifests")),
		Epoch:      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Platform:   "linux/amd64",
	}}
}

// Image makes an image for a platform with a layer per content; a layer holds the one
// file /content.
func Image(t testing.TB, p v1.Platform, contents ...string) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	for _, c := range contents {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(layerTar(t, c))), nil
		}, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

func layerTar(t testing.TB, content string) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "content", Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Index makes a multi-arch index as buildkit does: linux/amd64, linux/arm64/v8 and an
// attestation, each with a layer of its own named after content.
func Index(t testing.TB, content string) v1.ImageIndex {
	t.Helper()
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range []v1.Platform{
		Platform,
		{OS: "linux", Architecture: "arm64", Variant: "v8"},
		{OS: "unknown", Architecture: "unknown"},
	} {
		img := Image(t, p, content+" "+p.String())
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	return index
}

// AddImage stores an image whole and locks it under the reference.
func (f *Fixture) AddImage(t testing.TB, reference string, img v1.Image) v1.Hash {
	t.Helper()
	f.putImage(t, img, true)
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	f.lock(reference, h, h)
	return h
}

// AddIndex stores an index sparsely, as mirroring does (all manifests and configs, but
// layers for [Platform] only), and locks it under the reference. It gives the digest
// of the platform's manifest.
func (f *Fixture) AddIndex(t testing.TB, reference string, index v1.ImageIndex) v1.Hash {
	t.Helper()
	h, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	manifest := f.putIndex(t, index)
	f.lock(reference, h, manifest)
	return manifest
}

func (f *Fixture) lock(reference string, h, manifest v1.Hash) {
	reference = strings.ReplaceAll(reference, "DIGEST", h.String())
	f.Lock.Images = append(f.Lock.Images, bundle.LockedImage{
		Reference: reference, Digest: h, Manifest: manifest, Size: 1, Tier: bundle.TierRequired,
	})
}

func (f *Fixture) putIndex(t testing.TB, index v1.ImageIndex) (wanted v1.Hash) {
	t.Helper()
	raw, err := index.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	f.Put(t, raw)
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Manifests {
		if d.MediaType.IsIndex() {
			child, err := index.ImageIndex(d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			if h := f.putIndex(t, child); h != (v1.Hash{}) {
				wanted = h
			}
			continue
		}
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		whole := d.Platform != nil && d.Platform.Equals(Platform)
		if whole {
			wanted = d.Digest
		}
		f.putImage(t, img, whole)
	}
	return wanted
}

func (f *Fixture) putImage(t testing.TB, img v1.Image, whole bool) {
	t.Helper()
	manifest, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	f.Put(t, manifest)
	f.Put(t, config)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if !whole {
			continue
		}
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		f.Put(t, data)
	}
}

// Put stores a blob.
func (f *Fixture) Put(t testing.TB, data []byte) v1.Hash {
	t.Helper()
	h, err := f.Store.PutBytes(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Artifacts stores and gives one artifact of each type, the lock's among them. What is
// in the others is their file's name.
func (f *Fixture) Artifacts(t testing.TB) []bundle.Artifact {
	t.Helper()
	lock, err := f.Lock.Encode()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := (&bundle.Plan{Stack: "test", Phases: []bundle.Phase{{Name: "one", Manifest: "kind: None\n", Timeout: time.Minute}}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, data []byte) bundle.File {
		return bundle.File{Name: name, MediaType: "application/octet-stream", Digest: f.Put(t, data), Size: int64(len(data))}
	}
	return []bundle.Artifact{
		{Type: bundle.ArtifactLock, Files: []bundle.File{file("appliance.lock", lock)}},
		{Type: bundle.ArtifactPlan, Files: []bundle.File{file("plan.json", plan)}},
		{Type: bundle.ArtifactNode, Files: []bundle.File{file("atoll", []byte("atoll"))}},
		{Type: bundle.ArtifactK3s, Files: []bundle.File{file("k3s", []byte("k3s")), file("k3s-images.txt", []byte("k3s-images.txt"))}},
	}
}

// Pack packs the fixture and gives the bundle's path.
func (f *Fixture) Pack(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bundle.tar")
	if err := bundle.Pack(t.Context(), path, f.Store, f.Lock, f.Artifacts(t), nil); err != nil {
		t.Fatal(err)
	}
	return path
}

// Lab fills the fixture with every kind of name and image: plain, multi-arch by tag,
// by digest and by both, two tags of one digest, an index in an index, Docker's media types.
func (f *Fixture) Lab(t testing.TB) {
	t.Helper()
	f.AddImage(t, "docker.io/library/busybox:1.28", Image(t, Platform, "busybox", "shared"))
	multi := Index(t, "multi")
	f.AddIndex(t, "registry.example:5000/org/app:1", multi)
	f.AddIndex(t, "registry.example:5000/org/app:latest", multi)
	f.AddIndex(t, "quay.io/org/pinned@DIGEST", Index(t, "pinned"))
	f.AddIndex(t, "ghcr.io/org/both:v2@DIGEST", Index(t, "both"))
	f.AddIndex(t, "ghcr.io/org/nested:1", mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: Index(t, "nested")}))
	docker := mutate.MediaType(Image(t, Platform, "docker"), types.DockerManifestSchema2)
	f.AddImage(t, "gcr.io/org/docker:1", mutate.ConfigMediaType(docker, types.DockerConfigJSON))
}
