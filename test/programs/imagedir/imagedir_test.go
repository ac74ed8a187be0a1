package imagedir

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const repository = "docker.io/library/mysql"

// folder writes a folder of one image.
func folder(t *testing.T) (string, v1.Image) {
	t.Helper()
	dir := t.TempDir()
	img, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	img = mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
	d, err := Add(dir, img)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteIndex(dir, []Entry{{repository, d}}); err != nil {
		t.Fatal(err)
	}
	return dir, img
}

func TestRepository(t *testing.T) {
	for image, want := range map[string]string{
		"mysql:8.0":                           repository,
		"docker.io/library/mysql:8.4":         repository,
		"ghcr.io/a/b@sha256:" + hex:           "ghcr.io/a/b",
		"localhost:5000/a/b:c@sha256:" + hex:  "localhost:5000/a/b",
		"gcr.io/istio-release/proxyv2:1.29.0": "gcr.io/istio-release/proxyv2",
	} {
		if got, err := Repository(image); err != nil || got != want {
			t.Errorf("Repository(%q) = %q, %v; want %q", image, got, err, want)
		}
	}
	if _, err := Repository("../x"); err == nil {
		t.Error("a path is no image's name")
	}
}

const hex = "afab736a3e498007241118a9123b91f9c21924e14bd743ae4232dc67857fb9ad"

func TestReadWhatWasWritten(t *testing.T) {
	dir, img := folder(t)
	entries, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Repository != repository || entries[0].Digest != want {
		t.Fatalf("read %+v", entries)
	}
	got, err := Image(dir, want)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := got.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	r, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h, _, err := v1.SHA256(r)
	if d, _ := layers[0].Digest(); err != nil || h != d {
		t.Errorf("layer has digest %s, want %s; %v", h, d, err)
	}
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip(err)
	}
	out, err := exec.Command("skopeo", "copy", "oci:"+dir+":"+repository, "dir:"+t.TempDir()).CombinedOutput()
	if err != nil {
		t.Errorf("skopeo copy: %v\n%s", err, out)
	}
}

// TestHostile reads folders that nobody wrote in good faith.
func TestHostile(t *testing.T) {
	index := func(d v1.Descriptor) []byte {
		data, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{d}})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for name, spoil := range map[string]func(dir string, d v1.Descriptor) []byte{
		"too large": func(string, v1.Descriptor) []byte { return []byte(strings.Repeat(" ", maxIndex+1)) },
		"not JSON":  func(string, v1.Descriptor) []byte { return []byte("[") },
		"no name":   func(_ string, d v1.Descriptor) []byte { d.Annotations = nil; return index(d) },
		"name with a tag": func(_ string, d v1.Descriptor) []byte {
			d.Annotations = map[string]string{refName: "a/b:c"}
			return index(d)
		},
		"digest out of a folder": func(_ string, d v1.Descriptor) []byte { d.Digest.Hex = "../../index.json"; return index(d) },
		"other manifest": func(dir string, d v1.Descriptor) []byte {
			path := filepath.Join(dir, "blobs/sha256", d.Digest.Hex)
			manifest, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, append(manifest, ' '), 0o644); err != nil {
				t.Fatal(err)
			}
			return index(d)
		},
		"large manifest": func(dir string, d v1.Descriptor) []byte {
			if err := os.Truncate(filepath.Join(dir, "blobs/sha256", d.Digest.Hex), maxManifest+1); err != nil {
				t.Fatal(err)
			}
			return index(d)
		},
		"short layer": func(dir string, d v1.Descriptor) []byte {
			img, err := Image(dir, d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			m, err := img.Manifest()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(filepath.Join(dir, "blobs/sha256", m.Layers[0].Digest.Hex), 1); err != nil {
				t.Fatal(err)
			}
			return index(d)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := folder(t)
			entries, err := Read(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "index.json"), spoil(dir, entries[0].Descriptor), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(dir); err == nil {
				t.Error("no error")
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"manifests":[{"digest":"sha256:` + hex + `","annotations":{"` + refName + `":"a/b"}}]}`))
	f.Add([]byte(`{"manifests":[{"digest":"sha256:x"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "index.json"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if entries, err := Read(dir); err == nil && len(entries) > 0 {
			t.Errorf("read %+v, of a folder without blobs", entries)
		}
	})
}
