package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"atoll/bundle"
	"atoll/bundle/sbom"
)

type sbomOptions struct {
	projectOptions
	nodeOptions
	bundle string
	output string
}

func newSBOMCommand(e *env) *cobra.Command {
	var o sbomOptions
	cmd := &cobra.Command{
		Use:   "sbom",
		Short: "Write the bill of materials: an SPDX document of all that is in the appliance",
		Long: `Sbom writes an SPDX 2.3 JSON document of what the lock names: the Debian packages
with the licences that their copyright files declare, the images, the k3s release and
the sources of the manifests, and the Go modules of the program that runs on the node. It
is the one that "atoll bundle" packs. It uses no network: the packages are in the store.
` + exitStatus,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, other := range []string{"file", "cache", "node-binary"} {
				if o.bundle != "" && cmd.Flags().Changed(other) {
					return usageError{fmt.Errorf("--bundle reads no definition: it goes without --%s", other)}
				}
			}
			return runSBOM(cmd.Context(), e, o)
		},
	}
	o.projectOptions.addFlags(cmd.Flags())
	o.nodeOptions.addFlags(cmd.Flags())
	cmd.Flags().StringVar(&o.bundle, "bundle", "", "write the one in this bundle; no definition is read")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "file to write (default: stdout)")
	return cmd
}

func runSBOM(ctx context.Context, e *env, o sbomOptions) error {
	data, err := o.document(ctx, e)
	if err != nil {
		return err
	}
	if o.output == "" {
		_, err := e.stdout.Write(data)
		return err
	}
	return hintOutput(bundle.WriteFile(o.output, func(f *os.File) error { _, err := f.Write(data); return err }))
}

func (o *sbomOptions) document(ctx context.Context, e *env) ([]byte, error) {
	if o.bundle != "" {
		return bundledSBOM(o.bundle)
	}
	p, err := o.load()
	if err != nil {
		return nil, err
	}
	l, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	s, err := p.store()
	if err != nil {
		return nil, err
	}
	node, err := p.nodeFile(ctx, s, o.nodeOptions)
	if err != nil {
		return nil, err
	}
	return p.sbom(ctx, e, s, l, node)
}

// bundledSBOM reads the document out of a bundle.
func bundledSBOM(path string) ([]byte, error) {
	b, err := openBundle(path, nil)
	if err != nil {
		return nil, hintRemake(err, remakeBundle)
	}
	defer b.Close()
	data, err := b.SBOM()
	return sbom.Escape(data), hintRemake(err, remakeBundle)
}

// sbom makes the bill of materials of a bundle in which the program runs on the node.
func (p *project) sbom(ctx context.Context, e *env, s *bundle.Store, l *bundle.Lock, program bundle.File) ([]byte, error) {
	step := e.progress("sbom")
	data, sum, err := sbom.Make(ctx, sbom.Input{
		Definition: p.def, Lock: l, Sources: p.stack.Sources, Program: program, Version: version(),
		Store: s, Cache: filepath.Join(p.cache, "packages"), Progress: step.set,
	})
	if err != nil {
		step.end(err, "")
		return nil, hintRemake(err, "atoll mirror -f %s", p.file)
	}
	step.end(nil, "%d images, %d packages (%d declare their licence), %d Go modules, %d files, %d sources: %s",
		sum.Images, sum.Packages, sum.Licensed, sum.Modules, sum.Files, sum.Sources, size(int64(len(data))))
	return data, nil
}

// sbomFile puts the bill of materials into the store.
func (p *project) sbomFile(ctx context.Context, e *env, s *bundle.Store, l *bundle.Lock, program bundle.File) (bundle.File, error) {
	data, err := p.sbom(ctx, e, s, l, program)
	if err != nil {
		return bundle.File{}, err
	}
	return textFile(ctx, s, p.def.Name+".spdx.json", "application/spdx+json", data)
}
