package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcdSocket is where the API server finds etcd. Who may connect is who may open it: root.
// TLS between two processes of one machine would only cost time.
const etcdSocket = "/run/k3s/etcd.sock"

// runEtcd runs etcd for one API server. Timeouts are long, for disks and processors that are slow or
// emulated: with a single member an election costs nothing but is never of use.
func runEtcd(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: etcd DATA-DIR SOCKET")
	}
	socket := args[1]
	// A socket that a killed run left; its folder is root's alone.
	if err := errors.Join(os.MkdirAll(filepath.Dir(socket), 0o700), os.RemoveAll(socket)); err != nil {
		return err
	}
	client := url.URL{Scheme: "unix", Path: socket}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	cfg := embed.NewConfig()
	cfg.Name = "default"
	cfg.Dir = args[0]
	cfg.LogLevel = "warn"
	// Only etcd's flags set this default. Without it each request counts as slow and is logged,
	// thousands a minute.
	cfg.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration
	cfg.TickMs, cfg.ElectionMs = 500, 5000
	cfg.ListenClientUrls = []url.URL{client}
	// Told to other members, of which there are none; it may not be a socket.
	cfg.AdvertiseClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:2379"}}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "periodic", "1h"
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	select {
	case err := <-e.Err():
		return fmt.Errorf("running etcd: %w", err)
	case <-stop:
		e.Close()
		return nil
	}
}
