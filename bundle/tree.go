package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle/bounds"
)

// blobs is a place that holds blobs: a [Store] or a [Bundle].
type blobs interface {
	// stat gives the size of a blob; false if there is none.
	stat(v1.Hash) (int64, bool)
	// load gives the bytes of a blob of at most bounds.Manifest. Other bytes than the
	// digest says are a [CorruptError].
	load(v1.Hash) ([]byte, error)
}

// tree finds what belongs to one image.
type tree struct {
	blobs blobs
	// wanted is the platform's manifest. It must be whole; of the other manifests
	// what is absent or malformed is left out. Zero if nothing is known to be wanted.
	wanted v1.Hash
	// spare is whether layers of other manifests are wanted if they are there.
	spare bool

	found  []v1.Descriptor // what is present, parents first
	seen   map[v1.Hash]bool
	whole  bool // wanted was found
	errors []error
	lost   []error // indexes that are not there: one may be the way to wanted
}

// walk gives all of an image's content that is present, root first. Whatever is
// missing of the platform's manifest is told by an error that wraps [ErrIncomplete].
func (t *tree) walk(root v1.Descriptor) ([]v1.Descriptor, []error) {
	t.seen = map[v1.Hash]bool{}
	t.visit(root, true, 0)
	if !t.whole && len(t.errors) == 0 && t.wanted != (v1.Hash{}) {
		t.errors = t.lost
	}
	if !t.whole && len(t.errors) == 0 && t.wanted != (v1.Hash{}) {
		t.fail("index %s does not list manifest %s: %w", root.Digest, t.wanted, ErrIncomplete)
	}
	return t.found, t.errors
}

func (t *tree) fail(format string, args ...any) {
	t.errors = append(t.errors, fmt.Errorf(format, args...))
}

// visit adds a descriptor and what it refers to.
func (t *tree) visit(d v1.Descriptor, need bool, depth int) {
	need = need || d.Digest == t.wanted
	seen := t.seen[d.Digest]
	there := t.add(d, need)
	if !there && !seen && d.MediaType.IsIndex() {
		t.lost = append(t.lost, fmt.Errorf("index %s is missing: %w", d.Digest, ErrIncomplete))
	}
	if !there || !d.MediaType.IsIndex() && !d.MediaType.IsImage() {
		return
	}
	data, err := t.blobs.load(d.Digest)
	if err != nil {
		t.fail("manifest %s: %w", d.Digest, err)
		return
	}
	if depth == 0 { // what the root is said to be comes from the root index, which another atoll may have written
		if is, err := describe(data); err != nil || is.MediaType != d.MediaType {
			t.fail("manifest %s is of type %q, not %q", d.Digest, is.MediaType, d.MediaType)
			return
		}
	}
	if d.MediaType.IsIndex() {
		t.index(d, data, depth)
	} else {
		t.manifest(d, data, need)
	}
}

func (t *tree) index(d v1.Descriptor, data []byte, depth int) {
	var index struct {
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := parse(data, &index); err != nil {
		if depth == 0 {
			t.fail("index %s: %w", d.Digest, err)
		}
		return
	}
	if depth == bounds.Indexes {
		t.fail("index %s: more than %d indexes in each other", d.Digest, bounds.Indexes)
		return
	}
	for _, child := range index.Manifests {
		t.visit(child, false, depth+1)
	}
}

func (t *tree) manifest(d v1.Descriptor, data []byte, need bool) {
	var m imageManifest
	if err := parse(data, &m); err != nil {
		if need {
			t.fail("manifest %s: %w", d.Digest, err)
		}
		return
	}
	need = d.Digest == t.wanted
	t.whole = t.whole || need
	t.add(m.Config, need)
	if !need && !t.spare {
		return
	}
	for _, layer := range m.Layers {
		t.add(layer, need)
	}
}

// add takes a descriptor whose blob is present. It is false if that is not so or it
// was taken before.
func (t *tree) add(d v1.Descriptor, need bool) bool {
	if !valid(d.Digest) {
		if need {
			t.fail("%q is no sha256 digest", d.Digest)
		}
		return false
	}
	if t.seen[d.Digest] {
		return false
	}
	size, ok := t.blobs.stat(d.Digest)
	switch {
	case !ok && need:
		t.fail("blob %s is missing: %w", d.Digest, ErrIncomplete)
	case ok && size != d.Size && need:
		t.errors = append(t.errors, &CorruptError{Name: "blob", Want: d.Digest,
			Err: fmt.Errorf("has %d bytes, its manifest says %d", size, d.Size)})
	}
	if !ok || size != d.Size {
		return false
	}
	t.seen[d.Digest] = true
	t.found = append(t.found, d)
	return true
}

// imageManifest is what is used of a manifest. The rest may be anything: the digest of its
// subject, say, of a kind that nobody knows.
type imageManifest struct {
	Config v1.Descriptor   `json:"config"`
	Layers []v1.Descriptor `json:"layers"`
}

// parse decodes a manifest, an index or index.json, within bounds.
func parse(data []byte, into any) error {
	if len(data) > bounds.Manifest {
		return fmt.Errorf("is larger than %d bytes", bounds.Manifest)
	}
	if bytes.Count(data, []byte(",")) > bounds.Elements {
		return fmt.Errorf("has more than %d elements", bounds.Elements)
	}
	return json.Unmarshal(data, into)
}

// describe makes the descriptor of a manifest out of its bytes. A manifest without
// a media type of its own is an OCI one.
func describe(data []byte) (v1.Descriptor, error) {
	var m struct {
		MediaType types.MediaType  `json:"mediaType"`
		Manifests *json.RawMessage `json:"manifests"`
		Layers    *json.RawMessage `json:"layers"`
	}
	if err := parse(data, &m); err != nil {
		return v1.Descriptor{}, err
	}
	switch {
	case m.MediaType != "":
	case m.Manifests != nil:
		m.MediaType = types.OCIImageIndex
	case m.Layers != nil:
		m.MediaType = types.OCIManifestSchema1
	}
	if !m.MediaType.IsIndex() && !m.MediaType.IsImage() {
		return v1.Descriptor{}, fmt.Errorf("media type %q is neither an image nor an index", m.MediaType)
	}
	return v1.Descriptor{MediaType: m.MediaType, Size: int64(len(data)), Digest: DigestOf(data)}, nil
}
