package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	write(t, file, "node-name: Box\nnode-ip: 203.0.113.254\ndisable: traefik,servicelb\nkubelet-arg:\n- a=1,2\ntls-san: [x]\n")
	write(t, file+".d/10-more.yaml", "disable+: [coredns]\nwrite-kubeconfig-mode: \"0644\"\nflannel-backend: host-gw\n")
	write(t, file+".d/20-last.yaml", "disable-default-registry-endpoint: true\ntls-san: [y]\n")
	c, err := Load(file, []string{"--node-label", "a=b", "--node-label=c=d", "--disable-helm-controller"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name      string
		got, want any
	}{
		{"node-name", c.NodeName, "box"},
		{"disable", c.Disable, []string{"traefik", "servicelb", "coredns"}},
		{"kubelet-arg", c.KubeletArgs, []string{"a=1,2"}},
		{"tls-san", c.TLSSAN, []string{"y"}},
		{"mode", c.WriteKubeconfigMode, "0644"},
		{"endpoint", c.DisableDefaultRegistryEndpoint, true},
		{"labels", c.NodeLabels, []string{"a=b", "c=d"}},
		{"dns", c.ClusterDNS, "10.43.0.10"},
	} {
		if !reflect.DeepEqual(tc.got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, tc.got, tc.want)
		}
	}
	if cidr, err := c.PodCIDR(); err != nil || cidr != "10.42.0.0/24" {
		t.Errorf("PodCIDR: got %q, %v", cidr, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, tc := range []struct{ yaml, want string }{
		{"node-ip: 1.2.3.4\nnode-nmae: x\n", "config.yaml:2: node-nmae: unknown key"},
		{"data-dir: /srv\n", "only /var/lib/rancher/k3s"},
		{"node-ip: nowhere\n", "not an IP address"},
		{"node-ip: 1.2.3.4\ndisable: [corends]\n", "unknown add-on"},
		{"disable-default-registry-endpoint: maybe\n", "expected true or false"},
		{"node-ip: 1.2.3.4\nwrite-kubeconfig-mode: rw\n", "not an octal"},
		{"- a\n", "expected a mapping"},
	} {
		file := filepath.Join(t.TempDir(), "config.yaml")
		write(t, file, tc.yaml)
		if _, err := Load(file, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want an error with %q", tc.yaml, err, tc.want)
		}
	}
}
