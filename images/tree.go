package images

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// maxNesting is how many indexes may be in each other; a bundle takes as many.
	maxNesting = 4
	// maxElements bounds the commas of a manifest, and with them the memory it
	// takes when decoded. Real ones have a few hundred.
	maxElements = 1 << 15
	// maxManifests bounds what one image may make us ask a registry for.
	maxManifests = 1024
)

// node is a manifest or an index.
type node struct {
	MediaType types.MediaType `json:"mediaType"`
	Manifests []v1.Descriptor `json:"manifests"`
	Config    v1.Descriptor   `json:"config"`
	Layers    []v1.Descriptor `json:"layers"`
	Schema    int             `json:"schemaVersion"`
}

// parseNode decodes a manifest or index of the kinds that a node can run.
func parseNode(data []byte) (*node, error) {
	if bytes.Count(data, []byte(",")) > maxElements {
		return nil, fmt.Errorf("manifest has more than %d elements", maxElements)
	}
	var n node
	if err := json.Unmarshal(data, &n); err != nil {
		return nil, fmt.Errorf("decoding manifest: %w", err)
	}
	switch {
	case n.Schema == 1 || n.MediaType.IsSchema1():
		return nil, fmt.Errorf("manifest has Docker's old schema 1, which nothing runs any more: push the image again with a tool of today")
	case n.MediaType == "" && n.Manifests != nil: // optional in OCI
		n.MediaType = types.OCIImageIndex
	case n.MediaType == "" && n.Layers != nil:
		n.MediaType = types.OCIManifestSchema1
	}
	if !n.MediaType.IsIndex() && !n.MediaType.IsImage() {
		return nil, fmt.Errorf("media type %q is neither that of an image nor of an index", n.MediaType)
	}
	return &n, nil
}

// isIndex tells an index from a manifest.
func (n *node) isIndex() bool { return n.MediaType.IsIndex() }

// blobs are the manifest's config and layers. Those that registries may not have
// (foreign layers) are no exception: a node needs them as well.
func (n *node) blobs() []v1.Descriptor { return append([]v1.Descriptor{n.Config}, n.Layers...) }

// isArtifact tells what is kept like an image and is none: a chart, a policy, a signature.
func (n *node) isArtifact() bool { return !n.isIndex() && !n.Config.MediaType.IsConfig() }

// size is the bytes of the manifest and its blobs, each counted once.
func (n *node) size(manifest int) int64 {
	seen := map[v1.Hash]bool{}
	total := int64(manifest)
	for _, b := range n.blobs() {
		if !seen[b.Digest] {
			seen[b.Digest] = true
			total += b.Size
		}
	}
	return total
}

// check refuses a manifest that cannot be fetched by what it says.
func (n *node) check() error {
	for _, b := range n.blobs() {
		if b.Digest.Algorithm != "sha256" || len(b.Digest.Hex) != 64 || b.Size < 0 {
			return fmt.Errorf("manifest names a blob by digest %q and size %d, not by a sha256 and its size", b.Digest, b.Size)
		}
	}
	return nil
}

// isAttestation tells what an index holds about an image, not for running: a builder
// writes it for the platform unknown/unknown.
func isAttestation(d v1.Descriptor) bool {
	return d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// choose lists what of an index may be for linux on arch, the best first: the plain
// architecture goes before its variants (amd64/v3), which only some machines run. Then
// come indexes, and manifests whose own config has to tell the platform.
func choose(manifests []v1.Descriptor, arch string) []v1.Descriptor {
	var sure, variants, maybe []v1.Descriptor
	for _, m := range manifests {
		p := m.Platform
		switch {
		case !m.MediaType.IsImage() && !m.MediaType.IsIndex():
		case p == nil || m.MediaType.IsIndex() && p.OS == "" && p.Architecture == "":
			maybe = append(maybe, m)
		case p.OS != "linux" || p.Architecture != arch:
		case p.Variant == "":
			sure = append(sure, m)
		default:
			variants = append(variants, m)
		}
	}
	return slices.Concat(sure, variants, maybe)
}

// platforms lists what an index has, for an error.
func platforms(manifests []v1.Descriptor) string {
	var out []string
	for _, m := range manifests {
		if m.Platform != nil && m.Platform.OS != "unknown" {
			out = append(out, m.Platform.String())
		}
	}
	if len(out) == 0 {
		return "none that it names"
	}
	return strings.Join(out, ", ")
}
