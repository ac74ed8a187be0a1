package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"

	"github.com/spf13/cobra"

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
		Long:  "Node holds the commands that the appliance itself runs. People need only status and secret.",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newNodePartCommand(e, "prepare", "Put k3s and its configuration in place", runNodePrepare),
		newNodePartCommand(e, "registry", "Serve the bundle's images and the status", runNodeRegistry),
		newNodePartCommand(e, "install", "Install the stack, phase by phase", runNodeInstall),
		newNodeStatusCommand(e),
		newNodeSecretCommand(e),
	)
	return cmd
}

// newNodePartCommand makes a command that works on the bundle.
func newNodePartCommand(e *env, use, short string, run func(context.Context, *env, *bundle.Bundle) error) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := bundle.Open(path)
			if err != nil {
				return err
			}
			defer b.Close()
			return run(cmd.Context(), e, b)
		},
	}
	cmd.Flags().StringVar(&path, "bundle", bundlePartition, "bundle to read, a file or a partition")
	return cmd
}

func nodeOpts(e *env) *firstboot.Options {
	return &firstboot.Options{Console: e.stdout, Log: e.log}
}

func runNodePrepare(ctx context.Context, e *env, b *bundle.Bundle) error {
	publishing, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := firstboot.Publish(publishing, firstboot.StatusPath, firstboot.PortPath); err != nil {
			e.log.Warn("publishing status", "err", err)
		}
	}()
	err := firstboot.Prepare(ctx, b, "/", nodeOpts(e))
	stop()
	<-done
	return err
}

func runNodeRegistry(ctx context.Context, e *env, b *bundle.Bundle) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opts := nodeOpts(e)
	serve := func(addr string, h http.Handler) (*http.Server, net.Listener, error) {
		ln, err := net.Listen("tcp", addr)
		return &http.Server{Handler: h}, ln, err
	}
	registry, rln, rerr := serve(firstboot.RegistryAddr, firstboot.NewRegistry(b, e.log))
	status, sln, serr := serve(firstboot.StatusAddr, firstboot.StatusHandler(firstboot.StatusPath))
	if err := errors.Join(rerr, serr); err != nil {
		return errors.Join(err, firstboot.RegistryPhase(opts, err))
	}
	failed := make(chan error, 3)
	go func() { failed <- registry.Serve(rln) }()
	go func() { failed <- status.Serve(sln) }()
	go func() {
		if err := firstboot.Publish(ctx, firstboot.StatusPath, firstboot.PortPath); err != nil {
			e.log.Warn("publishing status", "err", err) // nobody listens on a real machine
		}
	}()
	if err := firstboot.RegistryPhase(opts, nil); err != nil {
		return err
	}
	if err := notifyReady(); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return errors.Join(registry.Close(), status.Close())
	}
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

func runNodeInstall(ctx context.Context, e *env, b *bundle.Bundle) error {
	return firstboot.Install(ctx, b, kubeconfig, nodeOpts(e))
}

func newNodeStatusCommand(e *env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say how far the first boot is",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			s, err := firstboot.ReadStatus(firstboot.StatusPath)
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
