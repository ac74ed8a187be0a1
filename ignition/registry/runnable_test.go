package registry

import (
	"bytes"
	"net/http"
	"strconv"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// changed is an image whose manifest says something else.
type changed struct {
	v1.Image
	manifest []byte
}

func (c changed) RawManifest() ([]byte, error) { return c.manifest, nil }

// TestNotRunnable pushes manifests that Distribution takes and containerd does not: both faults
// are those of Kubeflow Fairing's append builder.
func TestNotRunnable(t *testing.T) {
	w := newWorld(t, nil)
	img := image(t)
	manifest, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	size := strconv.FormatInt(m.Config.Size, 10)
	for name, tc := range map[string]struct{ old, new, text string }{
		"size of the configuration": {`"size":` + size + `,"digest":"` + m.Config.Digest.String(), `"size":1,"digest":"` + m.Config.Digest.String(), "and the manifest says 1"},
		"media type of a layer":     {string(types.DockerLayer), string(types.DockerManifestSchema2), "has the media type of a manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			data := bytes.Replace(manifest, []byte(tc.old), []byte(tc.new), 1)
			if bytes.Equal(data, manifest) {
				t.Fatalf("no %s in %s", tc.old, manifest)
			}
			err := remote.Write(w.ref("a/app:1"), changed{img, data}, from(podA)...)
			refused(t, err, http.StatusBadRequest, "MANIFEST_INVALID", tc.text, "docs/fairing.md")
		})
	}
	if err := remote.Write(w.ref("a/app:1"), img, from(podA)...); err != nil {
		t.Error(err)
	}
}
