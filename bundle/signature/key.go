// Package signature signs bundles and files, and checks what was signed. One key does
// both: ECDSA on the curve P-256, in the files that "cosign generate-key-pair" writes, so
// that cosign uses a key of Atoll and Atoll one of cosign.
//
//   - A bundle is signed by the digest of its index, as cosign signs an image in a
//     registry: [Key.SignDigest], [PublicKey.VerifyDigest].
//   - A file is signed as ssh-keygen -Y sign does: [Key.SignFile], [PublicKey.VerifyFile].
//
// No transparency log is asked: signing and checking need no network. Signatures are
// deterministic (RFC 6979), so that a signed bundle is as reproducible as one that is not.
//
// Matchable errors: [ErrPassword], and [bundle.ErrUntrusted] for whatever is not signed
// with the key.
package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"golang.org/x/crypto/ssh"

	"atoll/bundle/bounds"
)

// ErrPassword says that a key cannot be decrypted: the password is wrong, or the file damaged.
var ErrPassword = errors.New("wrong password, or a damaged key")

// Types of PEM blocks, as cosign writes them; the second is of its first releases.
const (
	privateType = "ENCRYPTED SIGSTORE PRIVATE KEY"
	cosignType  = "ENCRYPTED COSIGN PRIVATE KEY"
	publicType  = "PUBLIC KEY"
)

// Key is a private key. It is a [bundle.Signer].
type Key struct{ private *ecdsa.PrivateKey }

// New makes a key.
func New() (*Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return &Key{private}, nil
}

// ParseKey decrypts the file of a private key. Another password than the one that it
// was encrypted with is an [ErrPassword].
func ParseKey(data, password []byte) (*Key, error) {
	block, err := decode(data, privateType, cosignType)
	if err != nil {
		return nil, err
	}
	der, err := encrypted.Decrypt(block, password)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrPassword, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("parsing the private key: %w", err)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, errNotP256
	}
	return &Key{private}, nil
}

var errNotP256 = errors.New("is no ECDSA key on the curve P-256, which is the only kind that is used here")

// Encode encrypts the key with the password: the content of its file.
func (k *Key) Encode(password []byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("encoding the private key: %w", err)
	}
	data, err := encrypted.Encrypt(der, password)
	if err != nil {
		return nil, fmt.Errorf("encrypting the private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: data}), nil
}

// Public is the key's other half.
func (k *Key) Public() *PublicKey { return &PublicKey{&k.private.PublicKey} }

// deterministic is a crypto.Signer that takes no random numbers, whatever its caller offers.
type deterministic struct{ *ecdsa.PrivateKey }

// Sign signs a digest; RFC 6979 is what a PrivateKey does without a reader.
func (d deterministic) Sign(_ io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	return d.PrivateKey.Sign(nil, digest, o)
}

// PublicKey checks what was signed with a [Key]. It is a [bundle.Verifier].
type PublicKey struct{ key *ecdsa.PublicKey }

// ParsePublicKey reads the file of a public key: PKIX in PEM.
func ParsePublicKey(data []byte) (*PublicKey, error) {
	block, err := decode(data, publicType)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKIXPublicKey(block)
	if err != nil {
		return nil, fmt.Errorf("parsing the public key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errNotP256
	}
	return &PublicKey{key}, nil
}

// Encode returns the content of the public key's file.
func (p *PublicKey) Encode() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(p.key)
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicType, Bytes: der}), nil
}

// String is the key's fingerprint, as ssh-keygen -l prints it.
func (p *PublicKey) String() string {
	key, err := ssh.NewPublicKey(p.key)
	if err != nil {
		return "(unusable key)" // not on P-256
	}
	return ssh.FingerprintSHA256(key)
}

// decode returns what is in the one PEM block of a file, which must be of one of the types.
func decode(data []byte, types ...string) ([]byte, error) {
	if len(data) > bounds.KeyFile {
		return nil, fmt.Errorf("is no key: has more than %d bytes", bounds.KeyFile)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("is no key: has no PEM block of type %q", types[0])
	}
	for _, t := range types {
		if block.Type == t {
			return block.Bytes, nil
		}
	}
	return nil, fmt.Errorf("is another kind of key: its PEM block is of type %.40q, not %q", block.Type, types[0])
}
