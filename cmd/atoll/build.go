package main

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"atoll/bundle"
)

type buildOptions struct {
	projectOptions
	remoteOptions
	nodeOptions
	keyOptions
	frozen bool
}

func newBuildCommand(e *env) *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Lock if there is no lock, then mirror, bundle and bake",
		Long:  "Build makes the disk image: lock if there is no lock, then mirror, bundle, bake. With --key\nbundle and image are signed.\n" + exitStatus,
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runBuild(cmd.Context(), e, o) },
	}
	o.projectOptions.addFlags(cmd.Flags())
	o.remoteOptions.addFlags(cmd.Flags())
	o.nodeOptions.addFlags(cmd.Flags())
	o.keyOptions.addFlags(cmd.Flags())
	addFrozen(cmd.Flags(), &o.frozen)
	return cmd
}

func runBuild(ctx context.Context, e *env, o buildOptions) error {
	p, err := o.projectOptions.load()
	if err != nil {
		return err
	}
	key, err := o.keyOptions.load(ctx, e)
	if err != nil {
		return err
	}
	tar, tarErr := p.output("", ".bundle.tar")
	raw, rawErr := p.output("", ".raw")
	if err := errors.Join(tarErr, rawErr); err != nil {
		return err
	}
	var l *bundle.Lock
	if _, statErr := os.Stat(p.lockFile); errors.Is(statErr, fs.ErrNotExist) && !o.frozen {
		l, err = p.resolve(ctx, e, o.remoteOptions)
	} else {
		l, err = p.frozen(ctx, e, o.remoteOptions)
	}
	if err != nil {
		return err
	}
	if err := p.mirror(ctx, e, l, o.remoteOptions, nil); err != nil {
		return err
	}
	if err := p.pack(ctx, e, l, tar, o.nodeOptions, key); err != nil {
		return err
	}
	return p.bake(ctx, e, l, tar, raw, key)
}
