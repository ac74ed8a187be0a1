package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Plan is what the node installs: the phases of a stack, in order.
type Plan struct {
	Stack  string  `json:"stack"`
	Phases []Phase `json:"phases"`
}

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
