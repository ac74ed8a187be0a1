package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// kinds of keys that are accepted and have no effect here, because the part of k3s they speak to is not present.
var ignored = map[string]any{
	"flannel-backend": "", "flannel-iface": "", "disable-network-policy": false, "disable-cloud-controller": false,
	"disable-helm-controller": false, "cluster-init": false, "etcd-disable-snapshots": false, "debug": false,
	"prefer-bundled-bin": false, "v": "", "node-external-ip": "", "token": "", "embedded-registry": false,
}

// field is where the value of a key goes: *string, *bool or *[]string; nil when the key is unknown.
func (c *Config) field(key string) any {
	switch key {
	case "node-name":
		return &c.NodeName
	case "node-ip":
		return &c.NodeIP
	case "advertise-address":
		return &c.AdvertiseAddress
	case "node-label":
		return &c.NodeLabels
	case "node-taint":
		return &c.NodeTaints
	case "disable":
		return &c.Disable
	case "resolv-conf":
		return &c.ResolvConf
	case "write-kubeconfig":
		return &c.WriteKubeconfig
	case "write-kubeconfig-mode":
		return &c.WriteKubeconfigMode
	case "tls-san":
		return &c.TLSSAN
	case "kubelet-arg":
		return &c.KubeletArgs
	case "kube-apiserver-arg":
		return &c.APIServerArgs
	case "kube-controller-manager-arg":
		return &c.ControllerManagerArgs
	case "kube-scheduler-arg":
		return &c.SchedulerArgs
	case "kube-proxy-arg":
		return &c.ProxyArgs
	case "disable-default-registry-endpoint":
		return &c.DisableDefaultRegistryEndpoint
	case "cluster-cidr":
		return &c.ClusterCIDR
	case "service-cidr":
		return &c.ServiceCIDR
	case "cluster-dns":
		return &c.ClusterDNS
	case "cluster-domain":
		return &c.ClusterDomain
	case "default-local-storage-path":
		return &c.DefaultLocalStoragePath
	case "pause-image":
		return &c.PauseImage
	case "private-registry":
		return &c.PrivateRegistry
	case "data-dir":
		return new(dataDir)
	}
	switch ignored[key].(type) {
	case bool:
		return new(bool)
	case string:
		return new(string)
	}
	return nil
}

// dataDir accepts one value only: DataDir.
type dataDir struct{}

// Load reads file, then the files of the folder file+".d" sorted by name, then args (`--key=value`,
// `--key value`, `--flag`). Files that do not exist are skipped.
func Load(file string, args []string) (*Config, error) {
	c := new(Config)
	names := []string{file}
	for _, ext := range []string{"*.yaml", "*.yml"} {
		more, err := filepath.Glob(filepath.Join(file+".d", ext))
		if err != nil {
			return nil, fmt.Errorf("listing %s.d: %w", file, err)
		}
		names = append(names, more...)
	}
	slices.Sort(names[1:])
	for _, name := range names {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading configuration: %w", err)
		}
		if err := c.parseYAML(name, data); err != nil {
			return nil, err
		}
	}
	if err := c.parseArgs(args); err != nil {
		return nil, err
	}
	return c, c.complete()
}

// parseYAML sets what one file says. A key that ends in "+" adds to a list instead of replacing it.
func (c *Config) parseYAML(name string, data []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("parsing %s: %w", name, err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: expected a mapping of keys to values", name, root.Line)
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		var values []string
		switch value.Kind {
		case yaml.SequenceNode:
			for _, item := range value.Content {
				values = append(values, item.Value)
			}
		case yaml.ScalarNode:
			if value.Tag != "!!null" {
				values = []string{value.Value}
			}
		default:
			return fmt.Errorf("%s:%d: %s: expected a value or a list", name, value.Line, key.Value)
		}
		k, add := strings.CutSuffix(key.Value, "+")
		if err := c.set(k, values, add); err != nil {
			return fmt.Errorf("%s:%d: %w", name, key.Line, err)
		}
	}
	return nil
}

func (c *Config) parseArgs(args []string) error {
	given := map[string]bool{} // a list on the command line replaces the files' list, then grows
	for i := 0; i < len(args); i++ {
		key, ok := strings.CutPrefix(args[i], "--")
		if !ok {
			return fmt.Errorf("unexpected argument %q", args[i])
		}
		key, value, hasValue := strings.Cut(key, "=")
		if _, isBool := c.field(key).(*bool); isBool && !hasValue {
			value, hasValue = "true", true
		}
		if !hasValue {
			if i++; i == len(args) {
				return fmt.Errorf("--%s: a value is missing", key)
			}
			value = args[i]
		}
		if err := c.set(key, []string{value}, given[key]); err != nil {
			return fmt.Errorf("--%w", err)
		}
		given[key] = true
	}
	return nil
}

func (c *Config) set(key string, values []string, add bool) error {
	switch f := c.field(key).(type) {
	case *[]string:
		if key == "disable" || key == "tls-san" {
			values = strings.FieldsFunc(strings.Join(values, ","), func(r rune) bool { return r == ',' || r == ' ' })
		}
		if !add {
			*f = nil
		}
		*f = append(*f, values...)
	case *string:
		if len(values) > 1 {
			return fmt.Errorf("%s: expected one value, got %d", key, len(values))
		}
		*f = strings.Join(values, "")
	case *bool:
		b, err := strconv.ParseBool(strings.Join(values, ""))
		if err != nil {
			return fmt.Errorf("%s: expected true or false", key)
		}
		*f = b
	case *dataDir:
		if len(values) != 1 || filepath.Clean(values[0]) != DataDir {
			return fmt.Errorf("data-dir: only %s is supported by this stand-in", DataDir)
		}
	default:
		return fmt.Errorf("%s: unknown key (this is a stand-in for k3s that knows fewer keys; see test/k3s/README.md)", key)
	}
	return nil
}
