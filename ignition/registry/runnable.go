package registry

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
)

// checkManifest refuses a manifest of an image that containerd would not pull, since pods that
// wait for ever tell it too late and to somebody else. Distribution looks at digests only. Kubeflow
// Fairing's append builder makes such images. What cannot be read is left to Distribution,
// and so are digests that are not there.
func (r *Registry) checkManifest(data []byte) error {
	type descriptor struct {
		MediaType types.MediaType `json:"mediaType"`
		Digest    digest.Digest   `json:"digest"`
		Size      int64           `json:"size"`
	}
	var m struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	if json.Unmarshal(data, &m) != nil {
		return nil
	}
	for _, l := range m.Layers {
		if l.MediaType.IsImage() || l.MediaType.IsIndex() {
			return invalid("layer %s has the media type of a manifest, %s", l.Digest, l.MediaType)
		}
	}
	for _, d := range append(m.Layers, m.Config) {
		if d.Digest.Validate() != nil {
			continue
		}
		info, err := r.store.root.Stat(blobFile(string(d.Digest.Algorithm()), d.Digest.Encoded()))
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
