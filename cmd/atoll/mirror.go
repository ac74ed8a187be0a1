package main

import (
	"context"

	"github.com/spf13/cobra"

	"atoll/bundle"
	"atoll/images"
)

type mirrorOptions struct {
	projectOptions
	remoteOptions
}

func newMirrorCommand(e *env) *cobra.Command {
	var o mirrorOptions
	cmd := &cobra.Command{
		Use:   "mirror",
		Short: "Fetch what the lock names into the store",
		Long: `Mirror fetches every image, file and package of the lock by its digest into the
store. What is there and whole is not fetched again, so a run that was cut short
goes on where it was.
` + exitStatus,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runMirror(cmd.Context(), e, o) },
	}
	o.projectOptions.addFlags(cmd.Flags())
	o.remoteOptions.addFlags(cmd.Flags())
	return cmd
}

func runMirror(ctx context.Context, e *env, o mirrorOptions) error {
	p, err := o.load()
	if err != nil {
		return err
	}
	l, err := p.readLock()
	if err != nil {
		return err
	}
	if err := p.mirrorSources(ctx, e, l, o.remoteOptions); err != nil {
		return err
	}
	if err := p.checkLock(ctx, l); err != nil {
		return err
	}
	return p.mirror(ctx, e, l, o.remoteOptions)
}

// mirrorSources fetches the sources of the lock that the store lacks.
func (p *project) mirrorSources(ctx context.Context, e *env, l *bundle.Lock, o remoteOptions) error {
	opts := o.options(e)
	if err := images.CheckSources(opts, p.stack.Sources); err != nil {
		return usageError{err}
	}
	if len(l.Sources) == 0 {
		return nil
	}
	s, err := p.store()
	if err != nil {
		return err
	}
	return images.MirrorSources(ctx, p.stack.Sources, l, s, opts)
}

// mirror fills the store.
func (p *project) mirror(ctx context.Context, e *env, l *bundle.Lock, o remoteOptions) error {
	s, err := p.store()
	if err != nil {
		return err
	}
	step := e.progress("mirror")
	opts := o.options(e)
	opts.Progress = func(pr images.Progress) { step.set(pr.Done, pr.Total) }
	err = images.Mirror(ctx, p.def, l, s, opts)
	step.end(err, "%d images, %d files, %d packages are in the store", len(l.Images), len(l.Files), len(l.Packages))
	return err
}
