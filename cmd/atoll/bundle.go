package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"atoll/bundle"
	"atoll/bundle/signature"
)

// nodeOptions choose the program that runs on the node.
type nodeOptions struct {
	binary string
}

func (o *nodeOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.binary, "node-binary", "", "atoll for the node's platform, statically linked (default: this program)")
}

type bundleOptions struct {
	projectOptions
	nodeOptions
	keyOptions
	output string
}

func newBundleCommand(e *env) *cobra.Command {
	var o bundleOptions
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Pack what the lock names into one file; verify or inspect it",
		Long: `Bundle packs the store's content that the lock names into one reproducible tar
that is an OCI image layout. It uses no network. With --key it is signed, as cosign
signs an image.
` + exitStatus,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runBundle(cmd.Context(), e, o) },
	}
	o.projectOptions.addFlags(cmd.Flags())
	o.nodeOptions.addFlags(cmd.Flags())
	o.keyOptions.addFlags(cmd.Flags())
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "file to write (default: build/NAME.bundle.tar beside the definition)")
	cmd.AddCommand(newBundleVerifyCommand(e), newBundleInspectCommand(e))
	return cmd
}

func runBundle(ctx context.Context, e *env, o bundleOptions) error {
	p, err := o.projectOptions.load()
	if err != nil {
		return err
	}
	key, err := o.keyOptions.load(ctx, e)
	if err != nil {
		return err
	}
	path, err := p.output(o.output, ".bundle.tar")
	if err != nil {
		return err
	}
	l, err := p.lock(ctx)
	if err != nil {
		return err
	}
	return p.pack(ctx, e, l, path, o.nodeOptions, key)
}

// pack writes the bundle, signed if there is a key.
func (p *project) pack(ctx context.Context, e *env, l *bundle.Lock, path string, o nodeOptions, key *signature.Key) error {
	s, err := p.store()
	if err != nil {
		return err
	}
	artifacts, err := p.artifacts(ctx, e, s, l, o)
	if err != nil {
		return err
	}
	if err := p.makeOut(path); err != nil {
		return err
	}
	step := e.progress("bundle")
	opts := &bundle.PackOptions{Progress: step.set}
	if key != nil {
		opts.Key = key
	}
	err = bundle.Pack(ctx, path, s, l, artifacts, opts)
	if err != nil {
		step.end(err, "")
		return hintRemake(err, "atoll mirror -f %s", p.file)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	step.end(nil, "%s, %s", path, size(info.Size()))
	return nil
}

// artifacts puts into the store what the bundle carries besides images and locked
// files, and lists all that is no image.
func (p *project) artifacts(ctx context.Context, e *env, s *bundle.Store, l *bundle.Lock, o nodeOptions) ([]bundle.Artifact, error) {
	lock, err := l.Encode()
	if err != nil {
		return nil, err
	}
	lockFile, err := textFile(ctx, s, "appliance.lock", "application/yaml", lock)
	if err != nil {
		return nil, err
	}
	planFile, err := textFile(ctx, s, "plan.json", "application/json", p.planJSON)
	if err != nil {
		return nil, err
	}
	node, err := p.nodeFile(ctx, s, o)
	if err != nil {
		return nil, err
	}
	sbomFile, err := p.sbomFile(ctx, e, s, l, node)
	if err != nil {
		return nil, err
	}
	k3s := make([]bundle.File, 0, len(l.Files))
	for _, f := range l.Files {
		k3s = append(k3s, bundle.File{Name: f.Name, MediaType: "application/octet-stream", Digest: f.Digest, Size: f.Size})
	}
	return []bundle.Artifact{
		{Type: bundle.ArtifactLock, Files: []bundle.File{lockFile}},
		{Type: bundle.ArtifactPlan, Files: []bundle.File{planFile}},
		{Type: bundle.ArtifactNode, Files: []bundle.File{node}},
		{Type: bundle.ArtifactK3s, Files: k3s},
		{Type: bundle.ArtifactSBOM, Files: []bundle.File{sbomFile}},
	}, nil
}

// nodeFile puts the program that runs on the node into the store.
func (p *project) nodeFile(ctx context.Context, s *bundle.Store, o nodeOptions) (bundle.File, error) {
	binary, err := nodeBinary(o.binary, p.def.Arch())
	if err != nil {
		return bundle.File{}, err
	}
	digest, size, err := s.PutFile(ctx, binary)
	return bundle.File{Name: "atoll", MediaType: "application/octet-stream", Digest: digest, Size: size}, err
}

func textFile(ctx context.Context, s *bundle.Store, name, mediaType string, data []byte) (bundle.File, error) {
	digest, err := s.PutBytes(ctx, data)
	return bundle.File{Name: name, MediaType: mediaType, Digest: digest, Size: int64(len(data))}, err
}

func newBundleVerifyCommand(e *env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Hash everything in a bundle again and name each bad blob",
		Long: `Verify reads the whole bundle, hashes every blob and checks that every image is
complete. With --key the bundle must be signed with that key.
` + exitStatus,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var key *signature.PublicKey
			if file != "" {
				var err error
				if key, err = readPublicKey(file); err != nil {
					return err
				}
			}
			return runBundleVerify(cmd.Context(), e, args[0], key)
		},
	}
	cmd.Flags().StringVar(&file, "key", "", "public key that the bundle must be signed with")
	return cmd
}

// openBundle opens a bundle, and tells one that is damaged from one that is not there or
// was cut short, or is not signed with the key, if there is one.
func openBundle(path string, key *signature.PublicKey) (*bundle.Bundle, error) {
	var trust bundle.Trust
	if key != nil {
		trust.Key = key
	}
	b, err := bundle.OpenTrusted(path, trust)
	return b, asDamaged(err)
}

// asDamaged marks what is wrong with the content of a bundle.
func asDamaged(err error) error {
	var system *fs.PathError
	for _, other := range []error{bundle.ErrIncomplete, bundle.ErrUntrusted, context.Canceled} {
		if errors.Is(err, other) {
			return err
		}
	}
	if err == nil || errors.As(err, &system) {
		return err
	}
	return damagedError{err}
}

// remakeBundle is what to do about a bundle that is not whole.
const remakeBundle = `fetch it again, or make it anew with "atoll mirror" and "atoll bundle"`

func runBundleVerify(ctx context.Context, e *env, path string, key *signature.PublicKey) error {
	b, err := openBundle(path, key)
	if err != nil {
		return hintRemake(err, remakeBundle)
	}
	defer b.Close()
	step := e.progress("verify")
	err = asDamaged(b.Verify(ctx, step.set))
	if key != nil {
		step.end(err, "%s is whole and signed with %s", path, key)
	} else {
		step.end(err, "%s is whole", path)
	}
	return hintRemake(err, remakeBundle)
}

func newBundleInspectCommand(e *env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Print a bundle's digest, and its images and files with their sizes",
		Long:  "Inspect lists what is in a bundle without reading the blobs.\n" + exitStatus,
		Args:  args(cobra.ExactArgs(1)),
		RunE:  func(_ *cobra.Command, args []string) error { return runBundleInspect(e, args[0], asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object with digest, images and files")
	return cmd
}

func runBundleInspect(e *env, path string, asJSON bool) error {
	b, err := openBundle(path, nil)
	if err != nil {
		return hintRemake(err, remakeBundle)
	}
	defer b.Close()
	if asJSON {
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			Digest v1.Hash        `json:"digest"`
			Signed bool           `json:"signed"` // by whomever: verify says whether it is right
			Images []bundle.Image `json:"images"`
			Files  []bundle.File  `json:"files"`
		}{b.Digest(), b.Signed(), b.Images(), b.Files()})
	}
	signed := "not signed"
	if b.Signed() {
		signed = "carries a signature"
	}
	fmt.Fprintf(e.stdout, "%s, %s\n\n", b.Digest(), signed)
	t := newTable(e.stdout)
	t.row("IMAGE", "DIGEST", "SIZE")
	for _, i := range b.Images() {
		t.row(i.Name, i.Digest.String(), size(i.Size))
	}
	t.row()
	t.row("FILE", "DIGEST", "SIZE")
	for _, f := range b.Files() {
		t.row(f.Name, f.Digest.String(), size(f.Size))
	}
	return t.Flush()
}
