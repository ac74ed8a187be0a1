package bundle

import (
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Trust is what a bundle must be to be opened. Each may be zero: any will do.
type Trust struct {
	// Digest is that of the bundle: of its root index.
	Digest v1.Hash
	// Key is what the bundle must be signed with.
	Key Verifier
}

// readTop reads index.json. All that is taken from it is which blobs are the root index and
// its signatures; for the rest see checkTop.
func (b *Bundle) readTop(data []byte, want v1.Hash) error {
	var index v1.IndexManifest
	if err := parse(data, &index); err != nil {
		return fmt.Errorf("parsing index.json: %w", err)
	}
	for _, d := range index.Manifests {
		switch {
		case d.Annotations[kindAnnotation] == kindSignature:
			b.signatures = append(b.signatures, d)
		case d.ArtifactType != artifactBundle:
			b.top = append(b.top, d)
		case b.root.Digest != v1.Hash{}:
			return errors.New("index.json has two root indexes")
		case !valid(d.Digest):
			return fmt.Errorf("parsing index.json: %q is no sha256 digest", d.Digest)
		default:
			b.root = d
		}
	}
	if b.root.Digest == (v1.Hash{}) {
		return fmt.Errorf("index.json has no root index (artifactType %s): it was changed, or an older atoll made it", artifactBundle)
	}
	if want != (v1.Hash{}) && b.root.Digest != want {
		return &CorruptError{Name: "bundle (its root index)", Want: want, Got: b.root.Digest}
	}
	return nil
}

// readRoot reads the root index, and with it everything else that a bundle says of itself.
func (b *Bundle) readRoot() error {
	data, err := b.load(b.root.Digest)
	if err != nil {
		return fmt.Errorf("reading the root index: %w", err)
	}
	var index v1.IndexManifest
	if err := parse(data, &index); err != nil {
		return fmt.Errorf("parsing the root index: %w", err)
	}
	if index.SchemaVersion != 2 || index.ArtifactType != artifactBundle {
		return fmt.Errorf("parsing the root index: version %d, type %q: not what this atoll reads", index.SchemaVersion, index.ArtifactType)
	}
	b.entries = index.Manifests
	names := map[string]bool{}
	for i, d := range index.Manifests {
		name := d.Annotations[refNameAnnotation]
		switch {
		case !valid(d.Digest):
			return fmt.Errorf("parsing the root index: entry %d has no sha256 digest", i+1)
		case d.ArtifactType != "" && name == "":
			if err := b.readArtifact(d); err != nil {
				b.damage = append(b.damage, err)
			}
		case name == "" || name != d.Annotations[imageNameAnnotation] || names[name]:
			return fmt.Errorf("parsing the root index: entry %d (%s) has no name, two, or another's", i+1, d.Digest)
		default:
			names[name] = true
			b.images = append(b.images, Image{Name: referenceOf(name, d.Digest), RefName: name, Digest: d.Digest, MediaType: d.MediaType, entry: d})
		}
	}
	b.readSizes()
	return nil
}

func (b *Bundle) readArtifact(d v1.Descriptor) error {
	data, err := b.load(d.Digest)
	if err != nil {
		return fmt.Errorf("artifact %s: %w", d.ArtifactType, err)
	}
	a, err := parseArtifact(d, data)
	if err != nil {
		return err
	}
	b.artifacts = append(b.artifacts, *a)
	return nil
}

// readSizes completes the images by what the lock says, if that can be read.
func (b *Bundle) readSizes() {
	l, err := b.Lock()
	if err != nil {
		return // Verify tells
	}
	locked := map[string]LockedImage{}
	for _, im := range l.Images {
		locked[im.Reference] = im
	}
	for i := range b.images {
		im := locked[b.images[i].Name]
		b.images[i].Manifest, b.images[i].Size = im.Manifest, im.Size
	}
}
