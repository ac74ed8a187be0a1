package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"atoll/bundle"
	"atoll/ignition/firstboot"
)

// Where things are on the node.
const (
	bundlePartition = "/dev/disk/atoll/bundle"
	kubeconfig      = "/etc/rancher/k3s/k3s.yaml"
)

func newNodeCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "What runs on the appliance",
		Long:  "Node holds the commands that the appliance itself runs. People need only status,\nsecret and registry gc.",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newNodePartCommand(e, "prepare", "Put k3s and its configuration in place", runNodePrepare),
		newNodeRegistryCommand(e),
		newNodePartCommand(e, "install", "Install the stack, phase by phase", runNodeInstall),
		newNodePublishCommand(e),
		newNodeStatusCommand(e),
		newNodeSecretCommand(e),
	)
	return cmd
}

// newNodePartCommand makes a command that works on the bundle.
func newNodePartCommand(e *env, use, short string, run func(ctx context.Context, e *env, path string) error) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), e, path) },
	}
	cmd.Flags().StringVar(&path, "bundle", bundlePartition, "bundle to read, a file or a partition")
	return cmd
}

func nodeOpts(e *env) *firstboot.Options {
	return &firstboot.Options{Console: e.stdout, Log: e.log}
}

// onBundle runs what works on the node's bundle. One that is another is told of as the phase's failure.
func onBundle(e *env, path, phase string, run func(*bundle.Bundle) error) error {
	b, err := firstboot.Open(path, "/", phase, nodeOpts(e))
	if err != nil {
		return err
	}
	defer b.Close()
	return run(b)
}

func runNodePrepare(ctx context.Context, e *env, path string) error {
	return onBundle(e, path, "prepare", func(b *bundle.Bundle) error { return firstboot.Prepare(ctx, b, "/", nodeOpts(e)) })
}

// notifyReady tells systemd that the service is up (sd_notify(3)).
func notifyReady() error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte("READY=1"))
	return errors.Join(err, conn.Close())
}

func runNodeInstall(ctx context.Context, e *env, path string) error {
	return onBundle(e, path, "k3s", func(b *bundle.Bundle) error { return firstboot.Install(ctx, b, kubeconfig, nodeOpts(e)) })
}

func newNodePublishCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "publish",
		Short: "Tell the status to the network and to the machine's host",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runNodePublish(cmd.Context(), e) },
	}
}

// runNodePublish has no rights on the node but to read its status.
func runNodePublish(ctx context.Context, e *env) error {
	ln, err := net.Listen("tcp", firstboot.StatusAddr)
	if err != nil {
		return err
	}
	if err := notifyReady(); err != nil {
		return errors.Join(err, ln.Close())
	}
	var tasks errgroup.Group
	tasks.Go(func() error {
		if err := firstboot.Publish(ctx, firstboot.StatusPath, firstboot.PortPath); err != nil {
			e.log.Warn("publishing status", "err", err) // nobody listens on a real machine
		}
		return nil
	})
	err = firstboot.ServeStatus(ctx, ln, firstboot.StatusPath)
	if ctx.Err() != nil {
		return errors.Join(err, tasks.Wait()) // the last status goes out
	}
	return err
}

func newNodeStatusCommand(e *env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say how far the first boot is",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			s, err := firstboot.ReadStatus(firstboot.StatusPath)
			if errors.Is(err, fs.ErrPermission) {
				// Not wrapped: the hint for that is about writing.
				return withHint(errors.New(err.Error()), "it may quote logs, so root alone may read it: sudo atoll node status")
			}
			if err != nil {
				return withHint(err, "this runs on an appliance: journalctl -u atoll-prepare tells why there is no status")
			}
			if asJSON {
				return json.NewEncoder(e.stdout).Encode(s)
			}
			return firstboot.FormatStatus(e.stdout, s)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the status as JSON")
	return cmd
}
