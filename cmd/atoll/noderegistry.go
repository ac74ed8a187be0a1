package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"atoll/bundle"
	"atoll/ignition/firstboot"
	"atoll/ignition/registry"
)

func newNodeRegistryCommand(e *env) *cobra.Command {
	cmd := newNodePartCommand(e, "registry", "Serve the bundle's images to this node", runNodeRegistry)
	cmd.Long = `Registry serves the images of the bundle to containerd of this node; nobody writes to it.
Below it are the commands of the registry that users push to. atoll-registry.service and
atoll-registry-writable.service run both; people need only gc.`
	cmd.AddCommand(newNodeRegistryWritableCommand(e), newNodeRegistryGCCommand(e))
	return cmd
}

func runNodeRegistry(ctx context.Context, e *env, path string) error {
	return onBundle(e, path, "registry", func(b *bundle.Bundle) error { return serveBundle(ctx, e, b) })
}

func serveBundle(ctx context.Context, e *env, b *bundle.Bundle) error {
	opts := nodeOpts(e)
	server := firstboot.RegistryServer(firstboot.NewRegistry(b, opts))
	ln, err := net.Listen("tcp", firstboot.RegistryAddr)
	if err != nil {
		return errors.Join(err, firstboot.RegistryPhase(opts, err))
	}
	// Before anybody is served: what is found damaged while serving is told over it.
	if err := firstboot.RegistryPhase(opts, nil); err != nil {
		return errors.Join(err, ln.Close())
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	if err := notifyReady(); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return server.Close()
	}
}

func newNodeRegistryWritableCommand(e *env) *cobra.Command {
	quota := firstboot.DefaultQuota
	cmd := &cobra.Command{
		Use:   "writable",
		Short: "Serve the registry that users push to",
		Long: `Writable serves ` + bundle.NodeRegistry + `, to which pods push images and from which
this node runs them. atoll-registry-writable.service runs it. A larger --quota goes into a
drop-in of that unit; docs/registry.md has one.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if quota < 1 || quota > 100 {
				return usageError{fmt.Errorf("--quota %d is no share in percent", quota)}
			}
			if e.level.Level() > slog.LevelInfo {
				e.level.Set(slog.LevelInfo) // who pushed what stays in the journal
			}
			return firstboot.ServeWritable(cmd.Context(), quota, notifyReady, nodeOpts(e))
		},
	}
	cmd.Flags().IntVar(&quota, "quota", quota, "share of the data partition that all images may take, in percent; one namespace may take half of it")
	return cmd
}

func newNodeRegistryGCCommand(e *env) *cobra.Command {
	var opts registry.CollectOptions
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Delete what no tag in the registry leads to",
		Long: `Gc deletes from the registry that users push to what no tag leads to any more, and prints
what that freed: images whose tag was pushed anew or deleted, and uploads that were never
finished. What is younger than --age stays, since a push may still need it. Pushes wait while
it runs; pulls do not.

It runs every day by itself (atoll-registry-gc.timer). Run it by hand, as root and with a
short --age, after you have deleted images to make room, or when pushes say that the quota
is used up.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Log = e.log
			return runNodeRegistryGC(cmd.Context(), e, firstboot.RegistryStoragePath, opts)
		},
	}
	cmd.Flags().DurationVar(&opts.Age, "age", registry.Age, "how old it must be to be deleted; longer than any push takes")
	cmd.Flags().BoolVar(&opts.DryRun, "dry-run", false, "delete nothing, and print what would be freed")
	return cmd
}

func runNodeRegistryGC(ctx context.Context, e *env, dir string, opts registry.CollectOptions) error {
	if opts.Age < time.Minute {
		return usageError{fmt.Errorf("--age %s is shorter than a push may take", opts.Age)}
	}
	if err := becomeOwner(dir); err != nil {
		return withHint(err, "root alone may do it, on an appliance: sudo atoll node registry gc")
	}
	took, err := registry.Collect(ctx, dir, opts)
	if err != nil {
		return err
	}
	freed := "freed"
	if opts.DryRun {
		freed = "would free"
	}
	_, err = fmt.Fprintf(e.stdout, "%s %s: %d manifests, %d blobs, %d unfinished uploads\n", freed, size(took.Bytes), took.Manifests, took.Blobs, took.Uploads)
	return err
}

// becomeOwner makes this process that of the folder's owner, if it is root's, so that nothing
// in the folder becomes root's, and nothing that lies there is followed by root.
func becomeOwner(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		// Not wrapped: the hint for that is about writing.
		return errors.New(err.Error())
	}
	owner := info.Sys().(*syscall.Stat_t)
	if os.Getuid() != 0 || owner.Uid == 0 {
		return nil
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(int(owner.Gid)), syscall.Setuid(int(owner.Uid)))
}
