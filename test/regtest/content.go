package regtest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is what an image is made of.
type Image struct {
	Arch, Variant string
	// Layers are the layers' bytes. They need not be tars: nobody here unpacks them.
	Layers [][]byte
}

// Bytes gives n random bytes, the same for one seed.
func Bytes(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// digest is the sha256 of data.
func digest(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// AddBlob keeps data under its digest. Every repository has it.
func (r *Registry) AddBlob(mediaType types.MediaType, data []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest(data), Size: int64(len(data))}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[d.Digest] = data
	return d
}

// AddImage adds an image, and names it; a name is like lab/tiny:1.
func (r *Registry) AddImage(img Image, names ...string) v1.Descriptor {
	config := map[string]any{"architecture": img.Arch, "os": "linux", "config": map[string]any{}}
	if img.Variant != "" {
		config["variant"] = img.Variant
	}
	diffs := []string{}
	layers := []v1.Descriptor{}
	for _, l := range img.Layers {
		diffs = append(diffs, digest(l).String())
		layers = append(layers, r.AddBlob(types.OCILayer, l))
	}
	config["rootfs"] = map[string]any{"type": "layers", "diff_ids": diffs}
	d := r.AddManifest(types.OCIManifestSchema1, v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: r.AddBlob(types.OCIConfigJSON, encode(config)), Layers: layers,
	}, names...)
	d.Platform = &v1.Platform{OS: "linux", Architecture: img.Arch, Variant: img.Variant}
	return d
}

// AddIndex adds an index of images, and names it.
func (r *Registry) AddIndex(images []v1.Descriptor, names ...string) v1.Descriptor {
	return r.AddManifest(types.OCIImageIndex, v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: images,
	}, names...)
}

// AddManifest adds what encodes to a manifest's JSON, sound or not, and names it.
func (r *Registry) AddManifest(mediaType types.MediaType, manifest any, names ...string) v1.Descriptor {
	d := r.AddBlob(mediaType, encode(manifest))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.types[d.Digest] = string(mediaType)
	for _, n := range names {
		r.tags[n] = d.Digest
	}
	return d
}

// Tag makes a name point at another manifest; at none if h is zero.
func (r *Registry) Tag(name string, h v1.Hash) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h == (v1.Hash{}) {
		delete(r.tags, name)
		return
	}
	r.tags[name] = h
}

// Content gives the bytes of a blob or manifest, nil if there is none.
func (r *Registry) Content(h v1.Hash) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blobs[h]
}

// encode gives the JSON of what this package made.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // the test's own value
	}
	return data
}
