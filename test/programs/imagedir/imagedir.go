// Package imagedir is a folder of container images, one for each repository: an OCI image
// layout whose index names the repositories. It is what test/programs writes and
// labimages serves from; skopeo reads it as well.
package imagedir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle"
)

// refName is the annotation that has a repository's name, as an image layout says.
const refName = "org.opencontainers.image.ref.name"

// Bounds of what is read.
const (
	maxIndex    = 1 << 20
	maxManifest = 1 << 20
)

// Repository is an image's name without tag and digest, in full: docker.io/library/mysql
// for mysql:8.0.
func Repository(image string) (string, error) {
	host, repository, _, _, err := bundle.SplitReference(image)
	if err != nil {
		return "", err
	}
	return host + "/" + repository, nil
}

// Entry is one image of the folder.
type Entry struct {
	Repository string // as Repository returns it
	v1.Descriptor
}

// Read returns the folder's index. Each image's manifest is there and as its digest says;
// layers are checked by who takes them.
func Read(dir string) ([]Entry, error) {
	data, err := bundle.ReadRegular(filepath.Join(dir, "index.json"), maxIndex)
	if err != nil {
		return nil, fmt.Errorf("reading images of %s: %w", dir, err)
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("reading images of %s: %w", dir, err)
	}
	seen := map[string]bool{}
	var entries []Entry
	for _, d := range index.Manifests {
		e := Entry{d.Annotations[refName], d}
		if r, err := Repository(e.Repository); err != nil || r != e.Repository || seen[r] {
			return nil, fmt.Errorf("reading images of %s: %q is not a repository's name, or there twice", dir, e.Repository)
		}
		seen[e.Repository] = true
		if err := Check(dir, d.Digest); err != nil {
			return nil, fmt.Errorf("reading image %s of %s: %w", e.Repository, dir, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// Check returns an error unless an image is whole in the folder, be it in its index or not:
// it reads the manifest and looks whether what it names is there.
func Check(dir string, digest v1.Hash) error {
	path, err := blob(dir, digest)
	if err != nil {
		return err
	}
	data, err := bundle.ReadRegular(path, maxManifest)
	if err != nil {
		return err
	}
	if got := bundle.DigestOf(data); got != digest {
		return fmt.Errorf("manifest %s has digest %s", digest, got)
	}
	m, err := v1.ParseManifest(bytes.NewReader(data))
	if err != nil {
		return err
	}
	for _, d := range append(m.Layers, m.Config) {
		path, err := blob(dir, d.Digest)
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() != d.Size {
			return fmt.Errorf("%s has %d bytes, want %d", d.Digest, info.Size(), d.Size)
		}
	}
	return nil
}

// blob returns a blob's path.
func blob(dir string, h v1.Hash) (string, error) {
	if _, err := v1.NewHash(h.String()); err != nil || h.Algorithm != "sha256" {
		return "", fmt.Errorf("%q is not a digest", h)
	}
	return filepath.Join(dir, "blobs", h.Algorithm, h.Hex), nil
}

// Image returns an image of the folder's index.
func Image(dir string, digest v1.Hash) (v1.Image, error) {
	if err := Check(dir, digest); err != nil {
		return nil, fmt.Errorf("reading image %s: %w", digest, err)
	}
	return layout.Path(dir).Image(digest)
}

// Add writes an image's blobs and returns its descriptor. Nothing names the image before
// WriteIndex.
func Add(dir string, img v1.Image) (v1.Descriptor, error) {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return v1.Descriptor{}, fmt.Errorf("writing image: %w", err)
	}
	layers, err := img.Layers()
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("writing image: %w", err)
	}
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("writing image: %w", err)
		}
		r, err := l.Compressed()
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("writing image: %w", err)
		}
		if err := errors.Join(write(dir, h, r), r.Close()); err != nil {
			return v1.Descriptor{}, fmt.Errorf("writing image: %w", err)
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("writing image: %w", err)
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("writing image: %w", err)
	}
	for _, data := range [][]byte{config, manifest} {
		if err := write(dir, bundle.DigestOf(data), bytes.NewReader(data)); err != nil {
			return v1.Descriptor{}, fmt.Errorf("writing image: %w", err)
		}
	}
	return v1.Descriptor{
		MediaType: types.OCIManifestSchema1, Digest: bundle.DigestOf(manifest), Size: int64(len(manifest)),
		Platform: &v1.Platform{OS: "linux", Architecture: "amd64"},
	}, nil
}

func write(dir string, h v1.Hash, r io.Reader) error {
	path, err := blob(dir, h)
	if err != nil {
		return err
	}
	return bundle.WriteFile(path, func(f *os.File) error {
		_, err := io.Copy(f, r)
		return err
	})
}

// WriteIndex names the folder's images.
func WriteIndex(dir string, entries []Entry) error {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	for _, e := range entries {
		e.Annotations = map[string]string{refName: e.Repository}
		index.Manifests = append(index.Manifests, e.Descriptor)
	}
	data, err := json.MarshalIndent(index, "", " ")
	if err != nil {
		return fmt.Errorf("writing images of %s: %w", dir, err)
	}
	for name, data := range map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}` + "\n"), "index.json": append(data, '\n')} {
		if err := bundle.WriteFile(filepath.Join(dir, name), func(f *os.File) error {
			_, err := f.Write(data)
			return err
		}); err != nil {
			return fmt.Errorf("writing images of %s: %w", dir, err)
		}
	}
	return nil
}
