package bundle_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.yaml.in/yaml/v3"

	"atoll/bundle"
	"atoll/bundle/bundletest"
)

// Beside the wanted manifest an index may list whatever it likes: what is absent, malformed
// or known by another digest is left out. On the way to the wanted manifest it is an error.
func TestOddIndexes(t *testing.T) {
	for name, beside := range map[string]struct {
		mediaType types.MediaType
		digest    string // that of content, if empty
		content   string // in the store, if not empty
	}{
		"absent index":       {mediaType: types.OCIImageIndex},
		"absent manifest":    {mediaType: types.OCIManifestSchema1},
		"malformed index":    {mediaType: types.OCIImageIndex, content: "no index"},
		"malformed manifest": {mediaType: types.DockerManifestSchema2, content: `{"layers":7}`},
		"sha512 index":       {mediaType: types.DockerManifestList, digest: "sha512:" + strings.Repeat("a", 128)},
		"sha512 manifest":    {mediaType: types.OCIManifestSchema1, digest: "sha512:" + strings.Repeat("a", 128)},
	} {
		t.Run(name, func(t *testing.T) {
			f := bundletest.New(t)
			manifest := f.AddIndex(t, "docker.io/org/x:1", bundletest.Index(t, "x"))
			whole := f.Lock.Images[0].Digest
			d := v1.Descriptor{MediaType: beside.mediaType, Digest: bundle.DigestOf([]byte(beside.content)), Size: int64(len(beside.content))}
			if beside.digest != "" {
				var err error
				if d.Digest, err = v1.NewHash(beside.digest); err != nil {
					t.Fatal(err)
				}
			}
			if beside.content != "" {
				f.Put(t, []byte(beside.content))
			}
			outer := func(manifests ...v1.Descriptor) {
				data, err := json.Marshal(map[string]any{
					"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": manifests,
					"subject": map[string]any{"digest": "blake3:aa"}, // nobody knows it, nor needs it
				})
				if err != nil {
					t.Fatal(err)
				}
				f.Lock.Images[0].Digest = f.Put(t, data)
			}
			inner, err := f.Store.Open(whole)
			if err != nil {
				t.Fatal(err)
			}
			defer inner.Close()
			info, err := inner.Stat()
			if err != nil {
				t.Fatal(err)
			}
			outer(d, v1.Descriptor{MediaType: types.OCIImageIndex, Digest: whole, Size: info.Size()})
			b, err := bundle.Open(f.Pack(t))
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if err := b.Verify(t.Context(), nil); err != nil {
				t.Error(err)
			}
			if _, ok := b.Blob(manifest); !ok {
				t.Error("the wanted manifest is not there")
			}
			outer(d)
			err = bundle.Pack(t.Context(), filepath.Join(t.TempDir(), "b"), f.Store, f.Lock, f.Artifacts(t), nil)
			if !errors.Is(err, bundle.ErrIncomplete) || !strings.Contains(err.Error(), "docker.io/org/x:1") {
				t.Errorf("without the way to it: %v", err)
			}
		})
	}
}

// No size of a lock is larger than what can be summed up.
func TestLockSizes(t *testing.T) {
	digest := bundle.DigestOf(nil)
	for name, lock := range map[string]func(size int64) bundle.Lock{
		"image": func(size int64) bundle.Lock {
			return bundle.Lock{Images: []bundle.LockedImage{{Reference: "docker.io/org/x:1", Digest: digest, Manifest: digest, Size: size, Tier: bundle.TierRequired}}}
		},
		"file": func(size int64) bundle.Lock {
			return bundle.Lock{Files: []bundle.LockedFile{{Name: "x", URL: "http://h.test/x", Digest: digest, Size: size}}}
		},
		"package": func(size int64) bundle.Lock {
			return bundle.Lock{Packages: []bundle.LockedPackage{{Name: "xx", Version: "1", Path: "x", Digest: digest, Size: size}}}
		},
		"source": func(size int64) bundle.Lock {
			return bundle.Lock{Sources: []bundle.LockedSource{{Name: "x", URL: "http://h.test/x", Digest: digest, Size: size}}}
		},
	} {
		for size, sound := range map[int64]bool{-1: false, 0: true, bundle.MaxSize: true, bundle.MaxSize + 1: false, 1<<63 - 1: false} {
			l := lock(size)
			l.Definition, l.Manifests, l.Platform, l.Epoch = digest, digest, "linux/amd64", time.Unix(1<<30, 0)
			l.Version = 1
			if _, err := l.Encode(); (err == nil) != sound {
				t.Errorf("%s of %d bytes, written: %v", name, size, err)
			}
			data, err := yaml.Marshal(l)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := bundle.ParseLock("a.lock", data); (err == nil) != sound {
				t.Errorf("%s of %d bytes, read: %v", name, size, err)
			}
		}
	}
}
