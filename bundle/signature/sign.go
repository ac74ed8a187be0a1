package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// payloadType is what cosign writes into each payload.
const payloadType = "cosign container image signature"

// payload is what is signed in place of an image: its digest
// (https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md#payload).
type payload struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]any `json:"optional"`
}

// SignDigest signs the digest of a manifest or an index. The reference, a repository's
// name, only tells people what it is of. It returns cosign's payload and the signature
// of that, in base 64.
func (k *Key) SignDigest(digest v1.Hash, reference string) (data []byte, signature string, err error) {
	var p payload
	p.Critical.Identity.Reference = reference
	p.Critical.Image.Digest = digest.String()
	p.Critical.Type = payloadType
	if data, err = json.Marshal(p); err != nil {
		return nil, "", fmt.Errorf("signing: %w", err)
	}
	sum := sha256.Sum256(data)
	raw, err := deterministic{k.private}.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		return nil, "", fmt.Errorf("signing: %w", err)
	}
	return data, base64.StdEncoding.EncodeToString(raw), nil
}

// VerifyDigest checks what SignDigest returned. A signature by another key, or of
// another digest, is an [bundle.ErrUntrusted].
func (p *PublicKey) VerifyDigest(data []byte, signature string, digest v1.Hash) error {
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return fmt.Errorf("%w %s: the signature is not in base 64", bundle.ErrUntrusted, p)
	}
	sum := sha256.Sum256(data)
	if !ecdsa.VerifyASN1(p.key, sum[:], raw) {
		return fmt.Errorf("%w %s", bundle.ErrUntrusted, p)
	}
	var signed payload
	if err := json.Unmarshal(data, &signed); err != nil || signed.Critical.Type != payloadType {
		return fmt.Errorf("%w %s: what is signed is no index", bundle.ErrUntrusted, p)
	}
	if signed.Critical.Image.Digest != digest.String() {
		return fmt.Errorf("%w %s: what is signed is %.80q", bundle.ErrUntrusted, p, signed.Critical.Image.Digest)
	}
	return nil
}

// namespace is what ssh-keygen calls signatures of files.
const namespace = "file"

// SignFile signs a file's content as "ssh-keygen -Y sign -n file" does
// (https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig).
func (k *Key) SignFile(data []byte) ([]byte, error) {
	signer, err := ssh.NewSignerFromSigner(deterministic{k.private})
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	s, err := sshsig.Sign(bytes.NewReader(data), signer, sshsig.HashSHA512, namespace)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return sshsig.Armor(s), nil
}

// VerifyFile checks what SignFile, or ssh-keygen with this key, returned. A signature by
// another key, or of other content, is an [bundle.ErrUntrusted].
func (p *PublicKey) VerifyFile(data, signature []byte) error {
	if len(signature) > bounds.KeyFile {
		return fmt.Errorf("%w %s: the signature has more than %d bytes", bundle.ErrUntrusted, p, bounds.KeyFile)
	}
	s, err := sshsig.Unarmor(signature)
	if err != nil {
		return fmt.Errorf("%w %s: the signature cannot be read: %w", bundle.ErrUntrusted, p, err)
	}
	key, err := ssh.NewPublicKey(p.key)
	if err != nil {
		return err
	}
	if err := sshsig.Verify(bytes.NewReader(data), s, key, s.HashAlgorithm, namespace); err != nil {
		return fmt.Errorf("%w %s: %w", bundle.ErrUntrusted, p, err)
	}
	return nil
}
