package ignition

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.yaml.in/yaml/v3"

	"atoll/bundle"
)

//go:embed files
var files embed.FS

// scriptDir is where the node's scripts are; units name them without suffix.
const scriptDir = "/usr/local/lib/atoll/"

// dummyDNS is the node's own address on its dummy interface. Nothing listens there
// on port 53, so a query fails at once instead of waiting for an answer, and
// CoreDNS, which starts with no nameserver and with no loopback one, is content.
const dummyDNS = "203.0.113.254"

// document is the part of Butane fcos 1.4.0 that Atoll itself uses.
type document struct {
	Variant string `yaml:"variant"`
	Version string `yaml:"version"`
	Storage struct {
		Files []file `yaml:"files"`
	} `yaml:"storage"`
	Systemd struct {
		Units []unit `yaml:"units"`
	} `yaml:"systemd"`
	Passwd struct {
		Users []user `yaml:"users,omitempty"`
	} `yaml:"passwd,omitempty"`
}

type file struct {
	Path     string   `yaml:"path"`
	Mode     int      `yaml:"mode,omitempty"`
	Contents contents `yaml:"contents"`
}

type contents struct {
	Inline string `yaml:"inline"`
}

type unit struct {
	Name     string `yaml:"name"`
	Enabled  bool   `yaml:"enabled,omitempty"`
	Contents string `yaml:"contents,omitempty"`
}

type user struct {
	Name  string   `yaml:"name"`
	Shell string   `yaml:"shell"`
	Keys  []string `yaml:"ssh_authorized_keys,omitempty"`
}

func (d *document) add(path string, mode int, text string) {
	d.Storage.Files = append(d.Storage.Files, file{path, mode, contents{text}})
}

// nodeButane is Atoll's own Butane for the node.
func nodeButane(in Input) ([]byte, error) {
	base, err := files.ReadFile("files/node.bu")
	if err != nil {
		return nil, err
	}
	var d document
	if err := yaml.Unmarshal(base, &d); err != nil {
		return nil, fmt.Errorf("parsing node.bu: %w", err)
	}
	if err := errors.Join(d.addScripts(), d.addUnits(), d.addNode(in)); err != nil {
		return nil, err
	}
	if err := d.addHost(in.Definition.Host); err != nil {
		return nil, err
	}
	return yaml.Marshal(&d)
}

func (d *document) addScripts() error {
	names, err := fs.Glob(files, "files/*.sh")
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		d.add(scriptDir+strings.TrimSuffix(path.Base(name), ".sh"), 0o755, string(text))
	}
	firewall, err := files.ReadFile("files/firewall.nft")
	if err != nil {
		return err
	}
	d.add("/etc/atoll/firewall.nft", 0o644, string(firewall))
	return nil
}

// addUnits adds every unit, and enables those that say where they want to be.
func (d *document) addUnits() error {
	names, err := fs.Glob(files, "files/units/*")
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		d.Systemd.Units = append(d.Systemd.Units, unit{
			Name:     path.Base(name),
			Enabled:  strings.Contains(string(text), "\n[Install]\n"),
			Contents: string(text),
		})
	}
	return nil
}

// addNode adds what the node's program and its unpacking need to know.
func (d *document) addNode(in Input) error {
	if in.Node.Digest.Algorithm != "sha256" || len(in.Node.Digest.Hex) != 64 || in.Node.Offset <= 0 || in.Node.Size <= 0 {
		return fmt.Errorf("node's program has no place in the bundle: %+v", in.Node)
	}
	d.add("/etc/atoll/node.env", 0o644, fmt.Sprintf("ATOLL_OFFSET=%d\nATOLL_SIZE=%d\nATOLL_SHA256=%s\n",
		in.Node.Offset, in.Node.Size, in.Node.Digest.Hex))
	if in.Bundle == (v1.Hash{}) {
		return errors.New("bundle has no digest")
	}
	facts, err := json.MarshalIndent(struct {
		Name     string  `json:"name"`
		Hostname string  `json:"hostname,omitempty"`
		Epoch    int64   `json:"epoch"` // Unix seconds
		Bundle   v1.Hash `json:"bundle"`
	}{in.Definition.Name, in.Definition.Host.Hostname, in.Epoch.Unix(), in.Bundle}, "", " ")
	if err != nil {
		return err
	}
	d.add("/etc/atoll/appliance.json", 0o644, string(facts)+"\n")
	if in.Key != nil {
		d.add("/etc/atoll/bundle.pub", 0o644, string(in.Key))
	}
	return nil
}

// addHost adds the machine: hostname, users, network.
func (d *document) addHost(h bundle.Host) error {
	if h.Hostname != "" {
		d.add("/etc/hostname", 0o644, h.Hostname+"\n")
	}
	d.addUsers(h.Users)
	dns := h.Network.DNS
	if len(dns) > 0 {
		d.add("/etc/resolv.conf", 0o644, resolvConf(dns))
	} else {
		dns = []string{dummyDNS}
	}
	d.add("/etc/rancher/k3s/resolv.conf", 0o644, resolvConf(dns))
	return d.addNetwork(h.Network)
}

func resolvConf(servers []string) string {
	return "nameserver " + strings.Join(servers, "\nnameserver ") + "\n"
}

// addUsers adds the users, their right to be root, and sshd if one of them has a key.
func (d *document) addUsers(users []bundle.User) {
	var sudoers strings.Builder
	for _, u := range users {
		d.Passwd.Users = append(d.Passwd.Users, user{u.Name, "/bin/bash", u.SSHAuthorizedKeys})
		if u.Sudo {
			fmt.Fprintf(&sudoers, "%s ALL=(ALL:ALL) NOPASSWD: ALL\n", u.Name)
		}
	}
	if sudoers.Len() > 0 {
		d.add("/etc/sudoers.d/50-atoll", 0o440, sudoers.String())
	}
	if slices.ContainsFunc(users, func(u bundle.User) bool { return len(u.SSHAuthorizedKeys) > 0 }) {
		d.Systemd.Units = append(d.Systemd.Units, unit{Name: "ssh.service", Enabled: true})
	}
}

// addNetwork adds DHCP on every wired interface, or the definition's addresses, which do not
// count on the card of "atoll boot". A real default route gets a lower metric than the dummy
// one.
func (d *document) addNetwork(n bundle.Network) error {
	for _, v := range append([]string{n.Interface, n.Gateway}, append(n.Addresses, n.DNS...)...) {
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("network value %q has a control character", v)
		}
	}
	d.add("/etc/systemd/network/05-atoll-boot.network", 0o644, fmt.Sprintf(
		"[Match]\nMACAddress=%s\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nDHCP=ipv4\n\n[DHCPv4]\nRouteMetric=100\n", bundle.BootMAC))
	var s strings.Builder
	if len(n.Addresses) == 0 {
		match := "en* eth*"
		if n.Interface != "" {
			match = n.Interface
		}
		fmt.Fprintf(&s, "[Match]\nName=%s\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nDHCP=yes\n", match)
		s.WriteString("\n[DHCPv4]\nRouteMetric=100\n")
		d.add("/etc/systemd/network/80-atoll-dhcp.network", 0o644, s.String())
		return nil
	}
	fmt.Fprintf(&s, "[Match]\nName=%s\n\n[Link]\nRequiredForOnline=no\n\n[Network]\n", n.Interface)
	for _, a := range n.Addresses {
		fmt.Fprintf(&s, "Address=%s\n", a)
	}
	for _, a := range n.DNS {
		fmt.Fprintf(&s, "DNS=%s\n", a)
	}
	if n.Gateway != "" {
		fmt.Fprintf(&s, "\n[Route]\nGateway=%s\nMetric=100\n", n.Gateway)
	}
	d.add("/etc/systemd/network/20-atoll-static.network", 0o644, s.String())
	return nil
}
