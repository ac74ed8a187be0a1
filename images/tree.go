package images

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

const (
	// maxNesting is how many indexes may be in each other; a bundle takes as many.
	maxNesting = 4
)

// node is a manifest or an index.
type node struct {
	MediaType types.MediaType `json:"mediaType"`
	Manifests []v1.Descriptor `json:"manifests"`
	Config    v1.Descriptor   `json:"config"`
	Layers    []v1.Descriptor `json:"layers"`
	Schema    int             `json:"schemaVersion"`
	Artifact  string          `json:"artifactType"`
}

// parseNode decodes a manifest or index of the kinds that a node can run.
func parseNode(data []byte) (*node, error) {
	if bytes.Count(data, []byte(",")) > bounds.ImageElements {
		return nil, fmt.Errorf("manifest has more than %d elements", bounds.ImageElements)
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
func (n *node) isArtifact() bool {
	return !n.isIndex() && (!n.Config.MediaType.IsConfig() || n.Artifact != "")
}

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
		if err := checkBlob(b); err != nil {
			return err
		}
	}
	if size := n.size(0); size > bundle.MaxSize {
		return fmt.Errorf("manifest says that its blobs have %d bytes, more than the %d that an image may have: push the image again", size, bundle.MaxSize)
	}
	return nil
}

func checkBlob(b v1.Descriptor) error {
	switch {
	case !isSHA256(b) || b.Size < 0:
		return fmt.Errorf("manifest names a blob by digest %q and size %d, not by a sha256 and its size: push the image again", b.Digest, b.Size)
	case b.Size > bundle.MaxSize:
		return fmt.Errorf("manifest says that blob %s has %d bytes, more than the %d that an image may have: push the image again", b.Digest, b.Size, bundle.MaxSize)
	case b.Size == 0 && b.Digest != bundle.DigestOf(nil):
		return fmt.Errorf("manifest says that blob %s has no bytes, which is not their digest: push the image again", b.Digest)
	}
	return nil
}

// isSHA256 tells the digests that a store keeps content by.
func isSHA256(d v1.Descriptor) bool { return d.Digest.Algorithm == "sha256" }

var errOtherDigest = errors.New("its digest is no sha256, by which alone images are kept: push the image again with sha256")

// inline gives the content that a descriptor carries along. It is false if there is none,
// or another than the descriptor says. No content at all needs no carrying.
func inline(d v1.Descriptor) ([]byte, bool) {
	return d.Data, int64(len(d.Data)) == d.Size && bundle.DigestOf(d.Data) == d.Digest
}

// isForeign tells layers that registries need not have. Their types are many: one for each
// compression, and Docker's.
func isForeign(d v1.Descriptor) bool {
	t := string(d.MediaType)
	return strings.Contains(t, "nondistributable") || strings.Contains(t, "foreign")
}

// isAttestation tells what an index holds about an image, not for running. Builders write
// it for the platform unknown/unknown, and say what it is about.
func isAttestation(d v1.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// isVague tells what of an index its own content has to tell the platform of.
func isVague(d v1.Descriptor) bool {
	return d.Platform == nil || d.MediaType.IsIndex() && d.Platform.OS == "" && d.Platform.Architecture == ""
}

// choose lists what of an index may be for linux on arch, the best first: the plain
// architecture goes before its variants (amd64/v3), and of these the one that the most
// machines run. Then comes what is vague.
func choose(manifests []v1.Descriptor, arch string) []v1.Descriptor {
	var sure, vague []v1.Descriptor
	for _, m := range manifests {
		switch {
		case !m.MediaType.IsImage() && !m.MediaType.IsIndex() || isAttestation(m):
		case isVague(m):
			vague = append(vague, m)
		case m.Platform.OS == "linux" && m.Platform.Architecture == arch:
			sure = append(sure, m)
		}
	}
	slices.SortStableFunc(sure, func(a, b v1.Descriptor) int { return cmp.Compare(level(a.Platform), level(b.Platform)) })
	return append(sure, vague...)
}

// level orders the variants of an architecture. Each runs what those below it run.
func level(p *v1.Platform) int {
	n, err := strconv.Atoi(strings.TrimPrefix(p.Variant, "v"))
	switch {
	case p.Variant == "" || p.Architecture == "arm64" && n == 8: // which each arm64 is
		return 0
	case err != nil:
		return math.MaxInt
	}
	return n
}

// platforms lists what an index has, for an error.
func platforms(manifests []v1.Descriptor) string {
	var out []string
	for _, m := range manifests {
		if m.Platform != nil && !isAttestation(m) {
			out = append(out, m.Platform.String())
		}
	}
	if len(out) == 0 {
		return "none that it names"
	}
	return strings.Join(out, ", ")
}
