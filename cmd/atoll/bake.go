package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"atoll/bundle"
	"atoll/bundle/bounds"
	"atoll/ignition"
	"atoll/images/disk"
)

type bakeOptions struct {
	projectOptions
	bundle string
	output string
}

func newBakeCommand(e *env) *cobra.Command {
	var o bakeOptions
	cmd := &cobra.Command{
		Use:   "bake",
		Short: "Make the disk image of base OS, bundle and first-boot configuration",
		Long: `Bake writes a bootable raw disk image. The base OS is built once from the lock's
packages and kept in the cache. It uses no network.
` + exitStatus,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runBake(cmd.Context(), e, o) },
	}
	o.projectOptions.addFlags(cmd.Flags())
	cmd.Flags().StringVar(&o.bundle, "bundle", "", "bundle to bake (default: build/NAME.bundle.tar beside the definition)")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "file to write (default: build/NAME.raw beside the definition)")
	return cmd
}

func runBake(ctx context.Context, e *env, o bakeOptions) error {
	p, err := o.load()
	if err != nil {
		return err
	}
	raw, err := p.output(o.output, ".raw")
	if err != nil {
		return err
	}
	l, err := p.lock(ctx)
	if err != nil {
		return err
	}
	return p.bake(ctx, e, l, cmp.Or(o.bundle, p.built(".bundle.tar")), raw)
}

// bake writes the disk image.
func (p *project) bake(ctx context.Context, e *env, l *bundle.Lock, tar, raw string) error {
	initrd, err := p.firstBoot(l, tar)
	if err != nil {
		return err
	}
	s, err := p.store()
	if err != nil {
		return err
	}
	step := e.progress("base")
	base, err := disk.BuildBase(ctx, l, s, p.cache, &disk.Options{Log: e.log, Progress: step.named})
	step.end(err, "%d packages", len(l.Packages))
	if err != nil {
		return hintRemake(err, "atoll mirror -f %s", p.file)
	}
	if err := p.makeOut(raw); err != nil {
		return err
	}
	step = e.progress("bake")
	err = disk.Bake(ctx, raw, disk.Image{Lock: l, Base: base, Bundle: tar, Ignition: initrd, RootSize: int64(p.def.Disk.RootSize) << 30},
		&disk.Options{Log: e.log, Progress: step.named})
	if err != nil {
		step.end(err, "")
		return hintRemake(err, "atoll bundle -f %s", p.file)
	}
	info, err := os.Stat(raw)
	if err != nil {
		return err
	}
	step.end(nil, "%s, %s", raw, size(info.Size()))
	return nil
}

// firstBoot gives the initramfs that carries the first-boot configuration.
func (p *project) firstBoot(l *bundle.Lock, tar string) ([]byte, error) {
	b, err := openBundle(tar)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", err, bundle.ErrIncomplete) // what comes before it has failed, or was left out
	}
	if err != nil {
		return nil, hintRemake(err, "atoll bundle -f %s", p.file)
	}
	defer b.Close()
	_, node, err := b.File(bundle.ArtifactNode, "atoll")
	if err != nil {
		return nil, err
	}
	offset, size, ok := b.Section(node.Digest)
	if !ok {
		return nil, fmt.Errorf("%s: the node's program: %w", tar, bundle.ErrIncomplete)
	}
	in := ignition.Input{Definition: p.def, Epoch: l.Epoch, Node: ignition.Blob{Digest: node.Digest, Offset: offset, Size: size}}
	if path := p.def.Path(p.def.Ignition.Butane); path != "" {
		data, err := bundle.ReadRegular(path, bounds.FirstBoot)
		if err != nil {
			return nil, fmt.Errorf("reading the definition's Butane file: %w", err)
		}
		in.User = &ignition.Butane{Name: path, Data: data, FilesDir: filepath.Dir(path)}
	}
	config, err := ignition.Render(in)
	if err != nil {
		return nil, err
	}
	return ignition.Initrd(config, l.Epoch)
}
