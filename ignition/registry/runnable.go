package registry

import (
	"bytes"
	"fmt"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// checkManifest refuses a manifest of an image that containerd would not pull, since pods that
// wait for ever tell it too late and to somebody else. Distribution looks at digests only. Kubeflow
// Fairing's append builder makes such images. What cannot be read is left to Distribution,
// and so are digests that are not there.
func (r *Registry) checkManifest(data []byte) error {
	m, err := v1.ParseManifest(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	for _, l := range m.Layers {
		if l.MediaType.IsImage() || l.MediaType.IsIndex() {
			return invalid("layer %s has the media type of a manifest, %s", l.Digest, l.MediaType)
		}
	}
	for _, d := range append(m.Layers, m.Config) {
		if d.Digest.Hex == "" { // an index has no configuration
			continue
		}
		info, err := r.store.root.Stat(blobFile(d.Digest.Algorithm, d.Digest.Hex))
		if err == nil && info.Size() != d.Size {
			return invalid("%s has %d bytes, and the manifest says %d", d.Digest, info.Size(), d.Size)
		}
	}
	return nil
}

func invalid(format string, args ...any) *refusal {
	return &refusal{status: http.StatusBadRequest, code: "MANIFEST_INVALID", message: fmt.Sprintf(format, args...) +
		": no node could run this image (of Kubeflow Fairing's append builder? docs/fairing.md has the remedy)"}
}
