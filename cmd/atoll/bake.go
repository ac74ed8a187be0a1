package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"atoll/bundle"
	"atoll/bundle/bounds"
	"atoll/bundle/signature"
	"atoll/ignition"
	"atoll/images/disk"
)

type bakeOptions struct {
	projectOptions
	keyOptions
	bundle string
	output string
}

func newBakeCommand(e *env) *cobra.Command {
	var o bakeOptions
	cmd := &cobra.Command{
		Use:   "bake",
		Short: "Make the disk image of base OS, bundle and first-boot configuration",
		Long: `Bake writes a bootable raw disk image. The base OS is built once from the lock's
packages and kept in the cache. It uses no network. The image's sha256 goes beside it, to
IMAGE.sha256. With --key that is signed, and the node takes no bundle that is not.
` + exitStatus,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runBake(cmd.Context(), e, o) },
	}
	o.projectOptions.addFlags(cmd.Flags())
	o.keyOptions.addFlags(cmd.Flags())
	cmd.Flags().StringVar(&o.bundle, "bundle", "", "bundle to bake (default: build/NAME.bundle.tar beside the definition)")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "file to write (default: build/NAME.raw beside the definition)")
	return cmd
}

func runBake(ctx context.Context, e *env, o bakeOptions) error {
	p, err := o.projectOptions.load()
	if err != nil {
		return err
	}
	key, err := o.keyOptions.load(ctx, e)
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
	tar := cmp.Or(o.bundle, p.built(".bundle.tar"))
	err = p.bake(ctx, e, l, tar, raw, key)
	if errors.Is(err, bundle.ErrUntrusted) {
		return withHint(err, "atoll key sign --key %s %s", o.keyOptions.file, tar)
	}
	return err
}

// bake writes the disk image and its checksum, signed if there is a key.
func (p *project) bake(ctx context.Context, e *env, l *bundle.Lock, tar, raw string, key *signature.Key) error {
	if _, err := checksumLine(raw, v1.Hash{}); err != nil {
		return err
	}
	initrd, digest, err := p.firstBoot(l, tar, key)
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
	sum, err := disk.Bake(ctx, raw, disk.Image{Lock: l, Base: base, Bundle: tar, Digest: digest, Ignition: initrd, RootSize: int64(p.def.Disk.RootSize) << 30},
		&disk.Options{Log: e.log, Progress: step.named})
	if err != nil {
		step.end(err, "")
		return hintRemake(err, "atoll bundle -f %s", p.file)
	}
	if err := writeChecksum(raw, sum, key); err != nil {
		return err
	}
	info, err := os.Stat(raw)
	if err != nil {
		return err
	}
	step.end(nil, "%s, %s", raw, size(info.Size()))
	return nil
}

// firstBoot returns the initramfs that carries the first-boot configuration, and the digest
// of the bundle that it names.
func (p *project) firstBoot(l *bundle.Lock, tar string, key *signature.Key) ([]byte, v1.Hash, error) {
	var public *signature.PublicKey
	if key != nil {
		public = key.Public()
	}
	b, err := openBundle(tar, public)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", err, bundle.ErrIncomplete) // what comes before it has failed, or was left out
	}
	if err != nil {
		return nil, v1.Hash{}, hintRemake(err, "atoll bundle -f %s", p.file)
	}
	defer b.Close()
	in := ignition.Input{Definition: p.def, Epoch: l.Epoch, Bundle: b.Digest()}
	if in.Node, err = nodeProgram(b); err != nil {
		return nil, v1.Hash{}, err
	}
	if public != nil {
		if in.Key, err = public.Encode(); err != nil {
			return nil, v1.Hash{}, err
		}
	}
	if path := p.def.Path(p.def.Ignition.Butane); path != "" {
		data, err := bundle.ReadRegular(path, bounds.FirstBoot)
		if err != nil {
			return nil, v1.Hash{}, fmt.Errorf("reading the definition's Butane file: %w", err)
		}
		in.User = &ignition.Butane{Name: path, Data: data, FilesDir: filepath.Dir(path)}
	}
	config, err := ignition.Render(in)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	initrd, err := ignition.Initrd(config, l.Epoch)
	return initrd, b.Digest(), err
}

// nodeProgram is where in the bundle the program of the node is.
func nodeProgram(b *bundle.Bundle) (ignition.Blob, error) {
	_, node, err := b.File(bundle.ArtifactNode, "atoll")
	if err != nil {
		return ignition.Blob{}, err
	}
	offset, size, ok := b.Section(node.Digest)
	if !ok {
		return ignition.Blob{}, fmt.Errorf("%s: the node's program: %w", b.Path(), bundle.ErrIncomplete)
	}
	return ignition.Blob{Digest: node.Digest, Offset: offset, Size: size}, nil
}
