package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"atoll/test/k3s/node/internal/config"
	"atoll/test/k3s/node/internal/files"
	"atoll/test/k3s/node/internal/payload"
	"atoll/test/k3s/node/internal/registries"
)

//go:embed files/config.toml
var containerdConfig string

//go:embed files/kubelet.yaml
var kubeletConfig string

//go:embed files/cni.conflist
var cniConfig string

//go:embed addons/coredns.yaml
var addonCoreDNS string

//go:embed addons/local-storage.yaml
var addonLocalStorage string

//go:embed addons/metrics-server.yaml
var addonMetricsServer string

// addons are the manifests that k3s itself deploys.
var addons = map[string]*string{
	"coredns": &addonCoreDNS, "local-storage": &addonLocalStorage, "metrics-server": &addonMetricsServer,
}

// cniBinDir is where containerd looks for CNI plugins, and others (Istio) put theirs: k3s's own path since October
// 2024, which stays over upgrades.
const cniBinDir = config.DataDir + "/data/cni"

// writeAgentFiles writes what containerd and kubelet read.
func (s *server) writeAgentFiles() error {
	podCIDR, err := s.cfg.PodCIDR()
	if err != nil {
		return err
	}
	values := map[string]any{"Config": s.cfg, "Bin": s.bin, "CNI": cniBinDir, "Agent": agentDir, "TLS": tlsDir, "Socket": containerdSocket, "PodCIDR": podCIDR}
	return errors.Join(
		payload.Link(cniBinDir, s.bin, "bridge", "host-local", "loopback", "portmap"),
		writeTemplate(agentDir+"/etc/containerd/config.toml", containerdConfig, values),
		writeTemplate(agentDir+"/etc/kubelet.yaml", kubeletConfig, values),
		writeTemplate(agentDir+"/etc/cni/net.d/10-k3s.conflist", cniConfig, values),
		s.writeHosts(),
	)
}

// writeHosts turns registries.yaml into containerd's hosts.toml files; those of an earlier start are removed.
func (s *server) writeHosts() error {
	dir := agentDir + "/etc/containerd/certs.d"
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	r, err := registries.Load(s.cfg.PrivateRegistry)
	if err != nil {
		return err
	}
	hosts, err := r.Hosts(s.cfg.DisableDefaultRegistryEndpoint, registries.ServeRewrites)
	if err != nil {
		return err
	}
	for host, text := range hosts {
		if err := files.WriteWhole(filepath.Join(dir, host, "hosts.toml"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writeAddons writes the add-ons that are not disabled where the deploy controller finds them, and removes the
// manifests of those that are.
func (s *server) writeAddons() error {
	dir := config.DataDir + "/server/manifests"
	for name, text := range addons {
		path := filepath.Join(dir, name+".yaml")
		if s.cfg.Disabled(name) {
			if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
				return err
			}
			continue
		}
		if err := writeTemplate(path, *text, map[string]any{"Config": s.cfg}); err != nil {
			return err
		}
	}
	return nil
}

func writeTemplate(path, text string, values any) error {
	t, err := template.New(filepath.Base(path)).Delims("<<", ">>").Option("missingkey=error").Parse(text)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	var buf bytes.Buffer
	if err := t.Execute(&buf, values); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return files.WriteWhole(path, buf.Bytes(), 0o600)
}
