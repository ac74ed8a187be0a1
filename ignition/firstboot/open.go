package firstboot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
	"atoll/bundle/signature"
)

// Files of the first-boot configuration.
const (
	appliance = "etc/atoll/appliance.json"
	publicKey = "etc/atoll/bundle.pub" // only of an appliance that is signed
)

// facts are what the first-boot configuration says of the appliance.
type facts struct {
	Name     string  `json:"name"`
	Hostname string  `json:"hostname"`
	Epoch    int64   `json:"epoch"`  // Unix seconds
	Bundle   v1.Hash `json:"bundle"` // digest of the bundle
}

func readFacts(root string) (facts, error) {
	var f facts
	data, err := os.ReadFile(filepath.Join(root, appliance))
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("parsing /%s: %w", appliance, err)
	}
	if f.Bundle == (v1.Hash{}) {
		return f, fmt.Errorf("parsing /%s: it names no bundle", appliance)
	}
	return f, nil
}

// Open opens the bundle at path if it is the one that the first-boot configuration below
// root was made with: by its digest, and by its signature if there is a key. Anything else
// fails the phase.
func Open(path, root, phase string, o *Options) (*bundle.Bundle, error) {
	opts := o.withDefaults()
	f, err := readFacts(root)
	var b *bundle.Bundle
	if err == nil {
		b, err = openTrusted(path, root, f.Bundle)
	}
	if err == nil {
		return b, nil
	}
	opts.tell(func(s *bundle.Status) { s.Appliance = f.Name })
	return nil, opts.phase(phase, func() error { return err })
}

func openTrusted(path, root string, digest v1.Hash) (*bundle.Bundle, error) {
	trust := bundle.Trust{Digest: digest}
	data, err := os.ReadFile(filepath.Join(root, publicKey))
	switch {
	case err == nil:
		if trust.Key, err = signature.ParsePublicKey(data); err != nil {
			return nil, fmt.Errorf("/%s: %w", publicKey, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return bundle.OpenTrusted(path, trust)
}
