package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"atoll/bundle"
	"atoll/images"
	"atoll/images/disk"
)

// remoteOptions are the flags of the commands that dial out.
type remoteOptions struct {
	mirrors map[string]string
	sources map[string]string
}

func (o *remoteOptions) addFlags(f *pflag.FlagSet) {
	f.StringToStringVar(&o.mirrors, "mirror", nil, "send a registry's traffic elsewhere: `HOST=URL`, may be repeated")
	f.StringToStringVar(&o.sources, "source", nil, "take a source from disk: `NAME=PATH`; k3s=FOLDER is the k3s release")
}

func (o *remoteOptions) options(e *env) *images.Options {
	return &images.Options{Mirrors: o.mirrors, Sources: o.sources, Log: e.log}
}

type lockOptions struct {
	projectOptions
	remoteOptions
}

func newLockCommand(e *env) *cobra.Command {
	var o lockOptions
	cmd := &cobra.Command{
		Use:   "lock",
		Short: "Resolve the definition into appliance.lock",
		Long: `Lock asks registries, the k3s release and the Debian archive what the definition
means today, and writes the answer to the lock beside it: every image by digest,
every file and package by checksum.
` + exitStatus,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runLock(cmd.Context(), e, o) },
	}
	o.projectOptions.addFlags(cmd.Flags())
	o.remoteOptions.addFlags(cmd.Flags())
	return cmd
}

func runLock(ctx context.Context, e *env, o lockOptions) error {
	p, err := o.load()
	if err != nil {
		return err
	}
	return p.resolve(ctx, e, o.remoteOptions)
}

// resolve makes the lock.
func (p *project) resolve(ctx context.Context, e *env, o remoteOptions) error {
	var errs []error
	for _, d := range p.found.Doubts {
		errs = append(errs, errors.New(d.String()))
	}
	if err := errors.Join(errs...); err != nil {
		return withHint(err, "waive it in the stack, or write a rule for it")
	}
	wanted := make([]images.Wanted, 0, len(p.found.Images)+len(p.def.Images))
	for _, i := range p.found.Images {
		w := images.Wanted{Reference: i.Reference, Tier: i.Tier}
		for _, place := range i.Where {
			w.Where = append(w.Where, place.String())
		}
		wanted = append(wanted, w)
	}
	for n, ref := range p.def.Images {
		wanted = append(wanted, images.Wanted{Reference: ref, Tier: bundle.TierRuntime, Where: []string{fmt.Sprintf("definition: images[%d]", n)}})
	}
	step := e.progress("lock")
	l, err := images.Resolve(ctx, p.def, wanted, bundle.DigestOf(p.planJSON), disk.Packages(p.def.Base.Packages), o.options(e))
	if err != nil {
		step.end(err, "")
		return err
	}
	data, err := l.Encode()
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(p.lockFile); err == nil && bytes.Equal(old, data) {
		step.end(nil, "%s is up to date", p.lockFile)
		return nil
	}
	err = bundle.WriteFile(p.lockFile, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
	step.end(err, "%d images, %d files, %d packages in %s", len(l.Images), len(l.Files), len(l.Packages), p.lockFile)
	return err
}
