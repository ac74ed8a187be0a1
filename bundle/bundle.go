package bundle

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle/bounds"
)

// A Bundle reads a bundle in place, out of a file or a block device. Its methods
// may be called by many goroutines at once, up to Close.
type Bundle struct {
	path      string
	f         *os.File
	data      *io.SectionReader // of f
	size      int64
	blobs     map[v1.Hash]section
	order     []v1.Hash // as in the tar
	images    []Image
	artifacts []Artifact
	damage    []error // why artifacts cannot be read

	root       v1.Descriptor   // the root index
	entries    []v1.Descriptor // of it
	top        []v1.Descriptor // entries of index.json that should be the same
	signatures []v1.Descriptor // entries of index.json that should be signatures of the root index
}

// section is where a blob is.
type section struct{ offset, size int64 }

// Image is an image of a bundle.
type Image struct {
	// Name is the canonical reference that was locked.
	Name string `json:"name"`
	// RefName is its name in the index: Name, with a synthetic tag in place of the
	// digest if that is all it has (docker.io/library/busybox:sha256-0123456789ab).
	RefName   string          `json:"refName"`
	Digest    v1.Hash         `json:"digest"`
	MediaType types.MediaType `json:"mediaType"`
	// Manifest is the digest of the platform's manifest, and Size the bytes of that,
	// its config and its layers, as locked; zero if the lock cannot be read.
	Manifest v1.Hash `json:"manifest"`
	Size     int64   `json:"size"`

	entry v1.Descriptor // the entry of the root index
}

// Open opens the bundle in the file or block device at path. Bytes after the
// tar's end are ignored. A bundle that is cut short gives an error that wraps
// [ErrIncomplete]. Open reads the tar's headers and the index but no images: whether
// they are whole and right is for [Bundle.Verify] to say.
func Open(path string) (*Bundle, error) { return OpenTrusted(path, Trust{}) }

// OpenTrusted is Open of a bundle that must be a certain one. Nothing of it is taken that
// the digest, or the signed one, does not lead to. Another bundle than that of the digest
// is a [CorruptError], and one that is not signed with the key a [ErrUntrusted].
func OpenTrusted(path string, t Trust) (*Bundle, error) {
	f, err := openIf(path, func(m fs.FileMode) bool { return m.IsRegular() || m.Type() == fs.ModeDevice })
	if err != nil {
		return nil, fmt.Errorf("opening bundle: %w", err)
	}
	length, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening bundle: %w", err)
	}
	return open(path, f, io.NewSectionReader(f, 0, length), t)
}

// OpenIn opens the bundle in size bytes at offset of a file, which holds more than that:
// a disk image. Closing it leaves the file open. It is not to be reopened.
func OpenIn(file *os.File, offset, size int64) (*Bundle, error) {
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("opening bundle in %s: %w", file.Name(), err)
	}
	return open(file.Name(), f, io.NewSectionReader(f, offset, size), Trust{})
}

func open(path string, f *os.File, data *io.SectionReader, t Trust) (*Bundle, error) {
	b := &Bundle{path: path, f: f, data: data, blobs: map[v1.Hash]section{}}
	if err := b.read(t); err != nil {
		f.Close()
		return nil, fmt.Errorf("opening bundle %s: %w", path, err)
	}
	return b, nil
}

func (b *Bundle) read(t Trust) error {
	index, err := b.scan(b.data.Size())
	if err != nil {
		return err
	}
	if err := b.readTop(index, t.Digest); err != nil {
		return err
	}
	if t.Key != nil {
		if err := b.VerifySignature(t.Key); err != nil {
			return err
		}
	}
	return b.readRoot()
}

// scan finds every member of the tar and returns the content of index.json.
func (b *Bundle) scan(length int64) ([]byte, error) {
	tr := tar.NewReader(b.data) // skips contents by seeking
	var index []byte
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("cut short in member %d: %w", n+1, ErrIncomplete)
		}
		if err != nil {
			return nil, fmt.Errorf("reading member %d: %w", n+1, err)
		}
		if n == bounds.Members {
			return nil, fmt.Errorf("has more than %d members", bounds.Members)
		}
		offset, err := b.data.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if h.Size > length-offset {
			return nil, fmt.Errorf("cut short in %q: %w", h.Name, ErrIncomplete)
		}
		b.size = offset + padded(h.Size) + tarEnd
		data, err := b.member(n, h, section{offset, h.Size}, tr)
		if err != nil {
			return nil, err
		}
		index = append(index, data...)
	}
	if index == nil {
		return nil, errors.New("is not an OCI layout with an index.json")
	}
	if end, err := b.data.Seek(0, io.SeekCurrent); err != nil || end != b.size {
		return nil, errors.Join(err, fmt.Errorf("cut short after member %d: %w", len(b.order)+2, ErrIncomplete))
	}
	return index, nil
}

// member takes member n of the tar. If that is index.json it gives the content.
func (b *Bundle) member(n int, h *tar.Header, s section, r io.Reader) ([]byte, error) {
	hex, isBlob := strings.CutPrefix(h.Name, blobPrefix)
	digest := v1.Hash{Algorithm: "sha256", Hex: hex}
	switch {
	case !plain(h):
		return nil, fmt.Errorf("member %q is no plain file", h.Name)
	case n == 0 && h.Name == layoutMember && h.Size <= tarBlock:
		return nil, nil
	case n == 1 && h.Name == indexMember:
		if h.Size > bounds.Manifest {
			return nil, fmt.Errorf("%s has %d bytes, more than %d", indexMember, h.Size, bounds.Manifest)
		}
		data := make([]byte, h.Size)
		if _, err := io.ReadFull(r, data); err != nil {
			return nil, fmt.Errorf("reading %s: %w", indexMember, err)
		}
		return data, nil
	case n > 1 && isBlob && valid(digest):
		if n > 2 && b.order[len(b.order)-1].Hex >= hex {
			return nil, fmt.Errorf("member %q is there twice or out of order", h.Name)
		}
		b.order = append(b.order, digest)
		b.blobs[digest] = s
		return nil, nil
	}
	if n <= 1 {
		return nil, fmt.Errorf("is not an OCI layout that begins with %s and %s: member %d is %q", layoutMember, indexMember, n+1, h.Name)
	}
	return nil, fmt.Errorf("member %d is %q (%d bytes), which does not belong there", n+1, h.Name, h.Size)
}

// plain is whether the member's content is one run of bytes in the tar.
func plain(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return false
		}
	}
	return h.Typeflag == tar.TypeReg
}

// Close closes the bundle's file.
func (b *Bundle) Close() error { return b.f.Close() }

// Path is the file or block device that the bundle was opened from.
func (b *Bundle) Path() string { return b.path }

// Reopen opens the bundle's file once more, for a reader that needs an offset of its
// own. It is the same file even if another one has taken its path.
func (b *Bundle) Reopen() (*os.File, error) {
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", b.f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("opening bundle %s again: %w", b.path, err)
	}
	return f, nil
}

// Digest is the digest of the bundle's root index, and so of all that is in it. Signing a
// bundle does not change it.
func (b *Bundle) Digest() v1.Hash { return b.root.Digest }

// Size is the length of the bundle in bytes, without what follows the tar's end.
func (b *Bundle) Size() int64 { return b.size }

// Images lists the images, sorted by name.
func (b *Bundle) Images() []Image { return slices.Clone(b.images) }

// Artifacts lists the artifacts that can be read.
func (b *Bundle) Artifacts() []Artifact { return slices.Clone(b.artifacts) }

// Files lists the files of all artifacts.
func (b *Bundle) Files() []File {
	var files []File
	for _, a := range b.artifacts {
		files = append(files, a.Files...)
	}
	return files
}

// Section is where in the bundle the blob is, false if it is not there.
func (b *Bundle) Section(h v1.Hash) (offset, size int64, ok bool) {
	s, ok := b.blobs[h]
	return s.offset, s.size, ok
}

// Blob reads a blob, unverified; false if it is not there.
func (b *Bundle) Blob(h v1.Hash) (*io.SectionReader, bool) {
	s, ok := b.blobs[h]
	if !ok {
		return nil, false
	}
	return io.NewSectionReader(b.data, s.offset, s.size), true
}

// File reads a file of an artifact, unverified: who needs to be sure compares its
// digest. If there is no such file the error wraps [ErrIncomplete].
func (b *Bundle) File(artifactType, name string) (*io.SectionReader, File, error) {
	for _, a := range b.artifacts {
		for _, f := range a.Files {
			if a.Type != artifactType || f.Name != name {
				continue
			}
			r, ok := b.Blob(f.Digest)
			if !ok || r.Size() != f.Size {
				return nil, File{}, fmt.Errorf("reading %s of %s: blob %s is missing: %w", name, b.path, f.Digest, ErrIncomplete)
			}
			return r, f, nil
		}
	}
	if err := errors.Join(b.damage...); err != nil {
		return nil, File{}, fmt.Errorf("reading %s of %s: %w", name, b.path, err)
	}
	return nil, File{}, fmt.Errorf("reading %s of %s: no such file in an artifact %s: %w", name, b.path, artifactType, ErrIncomplete)
}

// document gives a small file of an artifact, verified.
func (b *Bundle) document(artifactType, name string) ([]byte, error) {
	r, f, err := b.File(artifactType, name)
	if err != nil {
		return nil, err
	}
	if f.Size > bounds.Document {
		return nil, fmt.Errorf("reading %s of %s: has %d bytes, more than %d", name, b.path, f.Size, bounds.Document)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("reading %s of %s: %w", name, b.path, err)
	}
	if got := DigestOf(data); got != f.Digest {
		return nil, &CorruptError{Name: fmt.Sprintf("%s of %s", name, b.path), Want: f.Digest, Got: got}
	}
	return data, nil
}

// Lock gives the lock that the bundle was made from.
func (b *Bundle) Lock() (*Lock, error) {
	data, err := b.document(ArtifactLock, "appliance.lock")
	if err != nil {
		return nil, err
	}
	return ParseLock(b.path+": appliance.lock", data)
}

// Plan gives what the node installs.
func (b *Bundle) Plan() (*Plan, error) {
	data, err := b.document(ArtifactPlan, "plan.json")
	if err != nil {
		return nil, err
	}
	if bytes.Count(data, []byte("{")) > bounds.PlanObjects {
		return nil, fmt.Errorf("parsing plan.json of %s: more than %d objects", b.path, bounds.PlanObjects)
	}
	var p Plan
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("parsing plan.json of %s: %w", b.path, err)
	}
	return &p, nil
}

// SBOM gives the bill of materials: an SPDX document, as JSON. Whoever made the bundle may
// have packed one of their own.
func (b *Bundle) SBOM() ([]byte, error) {
	name := "bill of materials"
	for _, a := range b.artifacts {
		if a.Type == ArtifactSBOM && len(a.Files) == 1 {
			name = a.Files[0].Name
		}
	}
	data, err := b.document(ArtifactSBOM, name)
	if err != nil {
		return nil, err
	}
	if !json.Valid(data) {
		return nil, fmt.Errorf("%s of %s is no JSON", name, b.path)
	}
	return data, nil
}

// stat and load make a bundle a place of blobs for [tree].
func (b *Bundle) stat(h v1.Hash) (int64, bool) {
	s, ok := b.blobs[h]
	return s.size, ok
}

func (b *Bundle) load(h v1.Hash) ([]byte, error) {
	r, ok := b.Blob(h)
	if !ok {
		return nil, fmt.Errorf("blob %s is missing: %w", h, ErrIncomplete)
	}
	if r.Size() > bounds.Manifest {
		return nil, fmt.Errorf("blob %s is larger than the %d bytes of a manifest", h, bounds.Manifest)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("reading blob %s: %w", h, err)
	}
	if got := DigestOf(data); got != h {
		return nil, &CorruptError{Name: b.memberName(h), Want: h, Got: got}
	}
	return data, nil
}

func (b *Bundle) memberName(h v1.Hash) string { return b.path + ": " + blobPrefix + h.Hex }
