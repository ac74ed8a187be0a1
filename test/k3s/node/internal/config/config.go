// Package config reads k3s's configuration: /etc/rancher/k3s/config.yaml, the files of config.yaml.d beside it,
// and the command line, in that order, a later one replacing an earlier one. A key that this stand-in does not
// know is an error, so that a test never passes because a setting was silently ignored.
package config

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// DataDir is where k3s keeps its state. It cannot be changed here.
const DataDir = "/var/lib/rancher/k3s"

// Config is what `k3s server` was told.
type Config struct {
	NodeName                       string
	NodeIP                         string
	AdvertiseAddress               string
	NodeLabels                     []string
	NodeTaints                     []string
	Disable                        []string
	ResolvConf                     string
	WriteKubeconfig                string
	WriteKubeconfigMode            string
	TLSSAN                         []string
	KubeletArgs                    []string
	APIServerArgs                  []string
	ControllerManagerArgs          []string
	SchedulerArgs                  []string
	ProxyArgs                      []string
	DisableDefaultRegistryEndpoint bool
	ClusterCIDR                    string
	ServiceCIDR                    string
	ClusterDNS                     string
	ClusterDomain                  string
	DefaultLocalStoragePath        string
	PauseImage                     string
	PrivateRegistry                string
}

// Disabled reports whether an add-on, or a group of manifests, was disabled.
func (c *Config) Disabled(name string) bool { return slices.Contains(c.Disable, name) }

// known are the add-ons that `disable` may name; traefik and servicelb are accepted and never present.
var known = []string{"coredns", "local-storage", "metrics-server", "traefik", "servicelb", "runtimes"}

// complete fills what was not given and checks what was.
func (c *Config) complete() error {
	for _, name := range c.Disable {
		if !slices.Contains(known, name) {
			return fmt.Errorf("disable: unknown add-on %q (known: %s)", name, strings.Join(known, ", "))
		}
	}
	if c.NodeName == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("finding the node's name: %w", err)
		}
		c.NodeName = host
	}
	c.NodeName = strings.ToLower(c.NodeName)
	if c.NodeIP == "" {
		ip, err := utilnet.ChooseHostInterface()
		if err != nil {
			return fmt.Errorf("finding the node's address (set node-ip): %w", err)
		}
		c.NodeIP = ip.String()
	}
	if net.ParseIP(c.NodeIP) == nil {
		return fmt.Errorf("node-ip: %q is not an IP address", c.NodeIP)
	}
	setDefault(&c.AdvertiseAddress, c.NodeIP)
	setDefault(&c.WriteKubeconfig, "/etc/rancher/k3s/k3s.yaml")
	setDefault(&c.WriteKubeconfigMode, "0600")
	setDefault(&c.ClusterCIDR, "10.42.0.0/16")
	setDefault(&c.ServiceCIDR, "10.43.0.0/16")
	setDefault(&c.ClusterDomain, "cluster.local")
	setDefault(&c.DefaultLocalStoragePath, DataDir+"/storage")
	setDefault(&c.PauseImage, "docker.io/rancher/mirrored-pause:3.6")
	setDefault(&c.PrivateRegistry, "/etc/rancher/k3s/registries.yaml")
	if _, err := c.KubeconfigMode(); err != nil {
		return err
	}
	if _, err := c.PodCIDR(); err != nil {
		return err
	}
	dns, err := c.ServiceIP(10)
	if err != nil {
		return err
	}
	setDefault(&c.ClusterDNS, dns)
	return nil
}

// KubeconfigMode is the mode of the administrator's kubeconfig.
func (c *Config) KubeconfigMode() (os.FileMode, error) {
	mode, err := strconv.ParseUint(c.WriteKubeconfigMode, 8, 32)
	if err != nil {
		return 0, fmt.Errorf("write-kubeconfig-mode: %q is not an octal file mode", c.WriteKubeconfigMode)
	}
	return os.FileMode(mode) & os.ModePerm, nil
}

// PodCIDR is the part of cluster-cidr that this one node gives to its pods: the first /24.
func (c *Config) PodCIDR() (string, error) {
	ip, block, err := net.ParseCIDR(c.ClusterCIDR)
	if err != nil || ip.To4() == nil {
		return "", fmt.Errorf("cluster-cidr: %q is not an IPv4 network", c.ClusterCIDR)
	}
	if ones, _ := block.Mask.Size(); ones > 24 {
		return "", fmt.Errorf("cluster-cidr: %q is smaller than a /24", c.ClusterCIDR)
	}
	return block.IP.String() + "/24", nil
}

// ServiceIP is the nth address of service-cidr: 1 is the API server's, 10 the cluster's DNS.
func (c *Config) ServiceIP(n byte) (string, error) {
	ip, block, err := net.ParseCIDR(c.ServiceCIDR)
	if err != nil || ip.To4() == nil {
		return "", fmt.Errorf("service-cidr: %q is not an IPv4 network", c.ServiceCIDR)
	}
	out := slices.Clone(block.IP.To4())
	out[3] += n
	return out.String(), nil
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}
