package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Plan is what the node installs: the phases of a stack, in order.
type Plan struct {
	Stack  string  `json:"stack"`
	Phases []Phase `json:"phases"`
	// Secrets are what the node makes up. Where they go the manifests have nothing.
	Secrets []Secret `json:"secrets,omitempty"`
}

// Secret is a value that a node makes up on its first boot, another one on each node.
type Secret struct {
	// Name tells it apart, like user-password.
	Name string `json:"name" yaml:"name"`
	// Reason says what it protects.
	Reason string `json:"reason" yaml:"reason"`
	// User is the account that a person signs in with, if it is a person's password.
	User string `json:"user,omitempty" yaml:"user,omitempty"`
	// Keys are where it goes.
	Keys []SecretKey `json:"keys" yaml:"keys"`
}

// SecretKey is one key of a Kubernetes Secret that the plan installs.
type SecretKey struct {
	Namespace string `json:"namespace" yaml:"namespace"`
	Secret    string `json:"secret" yaml:"secret"`
	Key       string `json:"key" yaml:"key"`
	// Hash is how the value is written: as it is if empty, or [HashBcrypt].
	Hash string `json:"hash,omitempty" yaml:"hash,omitempty"`
}

// HashBcrypt writes a password the way Dex reads it.
const HashBcrypt = "bcrypt"

// Phase is a set of objects that are applied together and then waited for.
type Phase struct {
	// Name is told while the phase runs.
	Name string `json:"name"`
	// Manifest is the phase's objects, as one stream of YAML documents.
	Manifest string `json:"manifest"`
	// Timeout bounds the phase, apply and wait together.
	Timeout time.Duration `json:"timeout"`
}

// Encode gives the plan's bytes; the same plan gives the same bytes.
func (p *Plan) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encoding plan: %w", err)
	}
	return append(data, '\n'), nil
}

// DigestOf is the sha256 digest of data.
func DigestOf(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// hashOf is the digest that a sha256 has come to.
func hashOf(sum hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
}
