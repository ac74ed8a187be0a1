package bundle

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle/bounds"
)

// Artifact types. Their files are named in the comments.
const (
	ArtifactLock = "application/vnd.atoll.lock.v1" // appliance.lock
	ArtifactNode = "application/vnd.atoll.node.v1" // atoll, the program that runs on the node
	ArtifactK3s  = "application/vnd.atoll.k3s.v1"  // the k3s release's files under their own names
	ArtifactPlan = "application/vnd.atoll.plan.v1" // plan.json, a Plan
	ArtifactSBOM = "application/spdx+json"         // NAME.spdx.json, the bill of materials
)

// artifactBundle is the type of a bundle's root index, which is what a bundle's digest is of.
const artifactBundle = "application/vnd.atoll.bundle.v1"

// File is one file of an [Artifact].
type File struct {
	Name      string  `json:"name"`
	MediaType string  `json:"mediaType"`
	Digest    v1.Hash `json:"digest"`
	Size      int64   `json:"size"` // in bytes
}

// Artifact is a set of files that is no image.
type Artifact struct {
	Type  string `json:"type"` // like ArtifactPlan
	Files []File `json:"files"`
}

// Members of the layout that are no blobs.
const (
	layoutMember = "oci-layout"
	layoutData   = `{"imageLayoutVersion":"1.0.0"}`
	indexMember  = "index.json"
	blobPrefix   = "blobs/sha256/"
)

// Annotations of index.json, and of an artifact's files.
const (
	refNameAnnotation   = "org.opencontainers.image.ref.name" // read by skopeo, podman, buildah
	imageNameAnnotation = "io.containerd.image.name"          // read by containerd and k3s
	titleAnnotation     = "org.opencontainers.image.title"
)

// refName is the name of an image in index.json: its reference, but with a tag made
// of the digest's start if it has none, since k3s cannot import a name without a
// tag. It is not the whole digest because clients take a tag sha256-HEX for the
// list of a digest's referrers.
func refName(reference string) string {
	repo, digest, ok := strings.Cut(reference, "@")
	if !ok || strings.Contains(repo[strings.LastIndex(repo, "/")+1:], ":") {
		return reference
	}
	return repo + ":" + digestTag(digest)
}

// digestTag is like sha256-0123456789ab.
func digestTag(digest string) string {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return algorithm + "-" + hex[:min(len(hex), 12)]
}

// referenceOf undoes refName.
func referenceOf(refName string, digest v1.Hash) string {
	if repo, ok := strings.CutSuffix(refName, ":"+digestTag(digest.String())); ok {
		return repo + "@" + digest.String()
	}
	return refName
}

// named gives a descriptor of index.json its name.
func named(d v1.Descriptor, name string) v1.Descriptor {
	d.Annotations = map[string]string{refNameAnnotation: name, imageNameAnnotation: name}
	return d
}

// manifest encodes the artifact as the image spec wants it: empty config, files as layers.
func (a *Artifact) manifest() (v1.Descriptor, []byte, error) {
	m := v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  a.Type,
		Config:        v1.Descriptor{MediaType: types.OCIEmptyJSON, Size: int64(len(emptyConfig)), Digest: DigestOf(emptyConfig), Data: emptyConfig},
	}
	names := map[string]bool{}
	for _, f := range a.Files {
		if f.Name == "" || names[f.Name] || !valid(f.Digest) || f.Size < 0 {
			return v1.Descriptor{}, nil, fmt.Errorf("artifact %s: file %q has no usable or unique name, digest or size", a.Type, f.Name)
		}
		names[f.Name] = true
		m.Layers = append(m.Layers, v1.Descriptor{
			MediaType:   types.MediaType(cmp.Or(f.MediaType, "application/octet-stream")),
			Size:        f.Size,
			Digest:      f.Digest,
			Annotations: map[string]string{titleAnnotation: f.Name},
		})
	}
	if a.Type == "" || len(a.Files) == 0 {
		return v1.Descriptor{}, nil, fmt.Errorf("artifact %q has no type or no files", a.Type)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return v1.Descriptor{}, nil, fmt.Errorf("encoding artifact: %w", err)
	}
	return v1.Descriptor{MediaType: m.MediaType, Size: int64(len(data)), Digest: DigestOf(data), ArtifactType: a.Type}, data, nil
}

var emptyConfig = []byte("{}")

// parseArtifact reads what manifest encoded.
func parseArtifact(d v1.Descriptor, data []byte) (*Artifact, error) {
	var m v1.Manifest
	if err := parse(data, &m); err != nil {
		return nil, fmt.Errorf("artifact %s: %w", d.Digest, err)
	}
	if m.ArtifactType != d.ArtifactType || m.MediaType != d.MediaType || int64(len(data)) != d.Size {
		return nil, fmt.Errorf("artifact %s: is of type %q (%s, %d bytes), the index says %q (%s, %d bytes)",
			d.Digest, m.ArtifactType, m.MediaType, len(data), d.ArtifactType, d.MediaType, d.Size)
	}
	a := &Artifact{Type: m.ArtifactType}
	for _, l := range m.Layers {
		if !valid(l.Digest) || l.Size < 0 {
			return nil, fmt.Errorf("artifact %s: file %q has no usable digest or size", d.Digest, l.Annotations[titleAnnotation])
		}
		a.Files = append(a.Files, File{Name: l.Annotations[titleAnnotation], MediaType: string(l.MediaType), Digest: l.Digest, Size: l.Size})
	}
	return a, nil
}

// encodeRoot returns the root index: all images and artifacts of a bundle, under their names.
func encodeRoot(images, artifacts []v1.Descriptor) ([]byte, error) {
	slices.SortFunc(images, func(a, b v1.Descriptor) int {
		return cmp.Compare(a.Annotations[refNameAnnotation], b.Annotations[refNameAnnotation])
	})
	slices.SortFunc(artifacts, func(a, b v1.Descriptor) int {
		return cmp.Or(cmp.Compare(a.ArtifactType, b.ArtifactType), cmp.Compare(a.Digest.Hex, b.Digest.Hex))
	})
	return encodeIndex(v1.IndexManifest{ArtifactType: artifactBundle, Manifests: slices.Concat(images, artifacts)})
}

// encodeTop returns index.json: what the root index lists, for tools that look no deeper,
// then the root index, then its signature if it has one. The last two are annotated as
// "cosign save" does, for "cosign verify --local-image".
func encodeTop(root []byte, signature *v1.Descriptor) ([]byte, error) {
	var list v1.IndexManifest
	if err := json.Unmarshal(root, &list); err != nil {
		return nil, fmt.Errorf("parsing the root index: %w", err)
	}
	list.ArtifactType = ""
	list.Manifests = append(list.Manifests, v1.Descriptor{
		MediaType: types.OCIImageIndex, Size: int64(len(root)), Digest: DigestOf(root), ArtifactType: artifactBundle,
		Annotations: map[string]string{kindAnnotation: kindIndex},
	})
	if signature != nil {
		list.Manifests = append(list.Manifests, *signature)
	}
	return encodeIndex(list)
}

func encodeIndex(m v1.IndexManifest) ([]byte, error) {
	m.SchemaVersion, m.MediaType = 2, types.OCIImageIndex
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encoding an index: %w", err)
	}
	if len(data) > bounds.Manifest {
		return nil, fmt.Errorf("encoding an index: more images than fit in %d bytes", bounds.Manifest)
	}
	return data, nil
}
