// Package ignition renders the first-boot configuration of a node: Butane in,
// validated Ignition (spec 3.3.0, what Debian's Ignition 2.14 takes) out.
//
// The package is pure: it reads nothing but what it is given and the files that
// the user's own Butane names, and the same input gives the same bytes. Mistakes
// in the user's Butane are joined [bundle.DefinitionError]s.
package ignition

import (
	"errors"
	"fmt"
	"time"

	"github.com/clarketm/json"
	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_3"
	"github.com/coreos/ignition/v2/config/v3_3/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// Input is what a configuration is made of.
type Input struct {
	// Definition gives the appliance's name, host, users and network.
	Definition *bundle.Definition
	// Bundle is the digest of the bundle that the node takes, and no other.
	Bundle v1.Hash
	// Key is the public key, in PEM, that the bundle must be signed with; nil if it need not be.
	Key []byte
	// Node is where the node's program is in the bundle.
	Node Blob
	// Epoch is the earliest time that the node's clock may show; whole seconds count.
	Epoch time.Time
	// User is the user's own Butane, merged over ours; nil if there is none.
	User *Butane
}

// Blob is a run of bytes in the bundle.
type Blob struct {
	Digest v1.Hash // sha256 of the bytes
	Offset int64   // first byte, counted from the bundle's start
	Size   int64   // bytes
}

// Butane is a file of Butane: variant fcos 1.4.0 or flatcar 1.0.0.
type Butane struct {
	Name string // name of the file, for errors
	Data []byte
	// FilesDir is where "local:" paths start; nothing outside of it is read.
	FilesDir string
}

// Render gives the Ignition configuration of a node. What the user's Butane says
// wins over what Atoll says. Anything that a node without network cannot do, or that
// would fail or destroy data when a power cut makes Ignition run twice, is an error.
func Render(in Input) ([]byte, error) {
	source, err := nodeButane(in)
	if err != nil {
		return nil, fmt.Errorf("rendering first-boot configuration: %w", err)
	}
	config, err := translate(Butane{Name: "node.bu", Data: source})
	if err != nil {
		return nil, fmt.Errorf("rendering first-boot configuration: %w", err)
	}
	if in.User != nil {
		user, err := userConfig(*in.User)
		if err != nil {
			return nil, err
		}
		config = v3_3.Merge(config, user)
	}
	makeRepeatable(&config)
	return encode(config)
}

// makeRepeatable lets Ignition run again over its own work, as it does after a power
// cut: it refuses a file that is there already unless told to overwrite it. A file
// without contents is only made if there is none, and may not say overwrite.
func makeRepeatable(c *types.Config) {
	for i := range c.Storage.Files {
		if f := &c.Storage.Files[i]; f.Contents.Source != nil {
			f.Overwrite = util.BoolToPtr(true)
		}
	}
	for i := range c.Storage.Links {
		c.Storage.Links[i].Overwrite = util.BoolToPtr(true)
	}
}

// encode writes the configuration and lets Ignition's own parser judge the bytes.
func encode(c types.Config) ([]byte, error) {
	data, err := json.MarshalIndent(c, "", " ") // like Butane: leaves empty structs out
	if err != nil {
		return nil, fmt.Errorf("encoding first-boot configuration: %w", err)
	}
	data = append(data, '\n')
	if len(data) > bounds.FirstBoot {
		return nil, fmt.Errorf("first-boot configuration has %d bytes, more than %d: put large files into an image or package", len(data), bounds.FirstBoot)
	}
	_, report, err := v3_3.Parse(data)
	var errs []error
	for _, e := range report.Entries {
		errs = append(errs, errors.New(e.String()))
	}
	if err != nil || len(errs) > 0 {
		return nil, fmt.Errorf("checking merged first-boot configuration: %w", errors.Join(append(errs, err)...))
	}
	return data, nil
}
