package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle/bounds"
)

// Annotations of cosign: in index.json of what "cosign save" writes, and of a signature
// (https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md).
const (
	kindAnnotation      = "kind"
	kindIndex           = "dev.cosignproject.cosign/imageIndex"
	kindSignature       = "dev.cosignproject.cosign/sigs"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
	signatureType       = "application/vnd.dev.cosign.simplesigning.v1+json"
)

// A Signer signs the digest of an index, as a key of package signature does. It is an interface, like
// [Verifier], so that this package links no cryptography of certificates, and with it a network.
type Signer interface {
	// SignDigest returns what is signed in place of the digest, and its signature in base 64.
	// The reference says what the digest is of.
	SignDigest(digest v1.Hash, reference string) (payload []byte, signature string, err error)
}

// A Verifier checks what a [Signer] returned. What is not signed so is an [ErrUntrusted].
type Verifier interface {
	VerifyDigest(payload []byte, signature string, digest v1.Hash) error
	String() string // the key's fingerprint
}

// signedAs is the reference in a signature. A bundle is in no registry, so it only says what it is.
const signedAs = "atoll/bundle"

// sign makes the image that holds the signature of the root index, as cosign puts it beside
// an image in a registry. It returns its entry of index.json.
func (p *packer) sign(key Signer, root v1.Hash) (v1.Descriptor, error) {
	payload, sig, err := key.SignDigest(root, signedAs)
	if err != nil {
		return v1.Descriptor{}, err
	}
	layer := p.make(payload)
	config, err := json.Marshal(v1.ConfigFile{RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{layer}}})
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("encoding signature: %w", err)
	}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		Config:        v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(config)), Digest: p.make(config)},
		Layers: []v1.Descriptor{{MediaType: signatureType, Size: int64(len(payload)), Digest: layer,
			Annotations: map[string]string{signatureAnnotation: sig}}},
	})
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("encoding signature: %w", err)
	}
	return v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: int64(len(manifest)), Digest: p.make(manifest),
		Annotations: map[string]string{kindAnnotation: kindSignature}}, nil
}

// Signed says whether the bundle carries a signature, whoever made it.
func (b *Bundle) Signed() bool { return len(b.signatures) > 0 }

// VerifySignature fails with a [ErrUntrusted] unless the bundle is signed with the key.
func (b *Bundle) VerifySignature(key Verifier) error {
	var errs []error
	for i, d := range b.signatures {
		if i == bounds.Signatures {
			break
		}
		err := b.verifySignature(d, key)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return fmt.Errorf("%w %s: it has no signature", ErrUntrusted, key)
}

// verifySignature checks the signatures in one image of them.
func (b *Bundle) verifySignature(d v1.Descriptor, key Verifier) error {
	data, err := b.load(d.Digest)
	if err != nil {
		return fmt.Errorf("%w %s: reading signature: %w", ErrUntrusted, key, err)
	}
	var m imageManifest
	if err := parse(data, &m); err != nil {
		return fmt.Errorf("%w %s: parsing signature %s: %w", ErrUntrusted, key, d.Digest, err)
	}
	err = fmt.Errorf("%w %s: signature %s has no payload", ErrUntrusted, key, d.Digest)
	for i, layer := range m.Layers {
		if i == bounds.Signatures {
			break
		}
		if layer.MediaType != signatureType || layer.Size > bounds.Payload {
			continue
		}
		var payload []byte
		if payload, err = b.load(layer.Digest); err != nil {
			err = fmt.Errorf("%w %s: reading signature: %w", ErrUntrusted, key, err)
			continue
		}
		if err = key.VerifyDigest(payload, layer.Annotations[signatureAnnotation], b.root.Digest); err == nil {
			return nil
		}
	}
	return err
}

// Sign signs the bundle at path, in place of the signature that it may have: it is written
// anew, whole or not at all, with one. What is not whole is not signed: see [Bundle.Verify].
func Sign(ctx context.Context, path string, o *PackOptions) error {
	b, err := Open(path)
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	defer b.Close()
	if err := b.Check(); err != nil {
		return fmt.Errorf("signing bundle %s: %w", path, err)
	}
	root, err := b.load(b.root.Digest)
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	p := newPacker()
	p.copy = b.copyBlob
	for h := range b.owners() {
		p.blobs[h] = b.blobs[h].size
	}
	if err := p.pack(ctx, path, root, o); err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	return nil
}

// copyBlob copies a blob and fails with a [CorruptError] if it is not what its digest says.
func (b *Bundle) copyBlob(ctx context.Context, w io.Writer, m member, buf []byte) error {
	r, ok := b.Blob(m.blob)
	if !ok {
		return fmt.Errorf("blob %s is missing: %w", m.blob, ErrIncomplete)
	}
	sum := sha256.New()
	if _, err := copyContext(ctx, io.MultiWriter(w, sum), r, buf); err != nil {
		return fmt.Errorf("copying blob %s: %w", m.blob, err)
	}
	if got := hashOf(sum); got != m.blob {
		return &CorruptError{Name: b.memberName(m.blob), Want: m.blob, Got: got}
	}
	return nil
}
