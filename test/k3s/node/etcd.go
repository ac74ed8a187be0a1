package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

const etcdURL = "https://127.0.0.1:2379"

// runEtcd runs etcd for one API server on loopback. Timeouts are long, for disks and processors that are slow or
// emulated: with a single member an election costs nothing but is never of use.
func runEtcd(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: etcd DATA-DIR TLS-DIR")
	}
	client, err := url.Parse(etcdURL)
	if err != nil {
		return err
	}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	cfg := embed.NewConfig()
	cfg.Name = "default"
	cfg.Dir = args[0]
	cfg.LogLevel = "warn"
	cfg.TickMs, cfg.ElectionMs = 500, 5000
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "periodic", "1h"
	cfg.ClientTLSInfo = transport.TLSInfo{
		CertFile: args[1] + "/server-client.crt", KeyFile: args[1] + "/server-client.key",
		TrustedCAFile: args[1] + "/server-ca.crt", ClientCertAuth: true,
	}
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
