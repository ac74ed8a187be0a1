package bundle

import (
	"encoding/json"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Definition is what the user wants: the content of appliance.yaml.
type Definition struct {
	// Name of the appliance, a DNS label. Outputs are named after it.
	Name string `yaml:"name" json:"name" jsonschema:"pattern=^[a-z0-9]([-a-z0-9]*[a-z0-9])?$,maxLength=63"`
	// Platform of the node. Only linux/amd64 has a base OS today.
	Platform string `yaml:"platform,omitempty" json:"platform,omitempty" jsonschema:"enum=linux/amd64,default=linux/amd64"`
	// Base is the operating system.
	Base Base `yaml:"base,omitempty" json:"base,omitempty"`
	// K3s is the Kubernetes distribution.
	K3s K3s `yaml:"k3s" json:"k3s"`
	// Stack is the name of a stack that atoll knows.
	Stack string `yaml:"stack" json:"stack" jsonschema:"enum=lab,enum=kubeflow"`
	// Auth is the way to sign in, of those that the stack knows. Default: its first.
	Auth string `yaml:"auth,omitempty" json:"auth,omitempty" jsonschema:"enum=authservice,enum=oauth2-proxy"`
	// Without names components of the stack to leave out.
	Without []string `yaml:"without,omitempty" json:"without,omitempty" jsonschema_extras:"uniqueItems=true"`
	// Overlays are folders with a kustomization of your own, relative to the definition.
	// What a Kustomization has is installed last; what a Component (the kind) says is done
	// to everything.
	Overlays []string `yaml:"overlays,omitempty" json:"overlays,omitempty" jsonschema_extras:"uniqueItems=true"`
	// Images that no manifest names, but that must be on the node all the same.
	Images []string `yaml:"images,omitempty" json:"images,omitempty"`
	// IncludeImages has patterns of optional images that are left out by default; "*"
	// stands for anything.
	IncludeImages []string `yaml:"includeImages,omitempty" json:"includeImages,omitempty"`
	// ExcludeImages has patterns of images to leave out. A required one cannot be.
	ExcludeImages []string `yaml:"excludeImages,omitempty" json:"excludeImages,omitempty"`
	// Host is the machine: users, keys, network.
	Host Host `yaml:"host,omitempty" json:"host,omitempty"`
	// Disk is the disk image.
	Disk Disk `yaml:"disk,omitempty" json:"disk,omitempty"`
	// Ignition extends the first-boot configuration.
	Ignition Ignition `yaml:"ignition,omitempty" json:"ignition,omitempty"`

	dir string // where relative paths start: the definition's folder
}

// Base is the operating system that the appliance runs.
type Base struct {
	// Suite is the Debian release.
	Suite string `yaml:"suite,omitempty" json:"suite,omitempty" jsonschema:"enum=bookworm,default=bookworm"`
	// Sources are apt sources, one-line style ("deb URI SUITE COMPONENT…").
	// Default: the building machine's own sources of that suite. A key of the machine must
	// vouch for an archive, or trusted=yes stand here; the lock says what came by that.
	Sources []string `yaml:"sources,omitempty" json:"sources,omitempty"`
	// Packages are Debian packages to add to those that a node needs.
	Packages []string `yaml:"packages,omitempty" json:"packages,omitempty" jsonschema_extras:"uniqueItems=true"`
}

// K3s names the release of k3s to install.
type K3s struct {
	// Version of k3s, as its releases are tagged.
	Version string `yaml:"version" json:"version" jsonschema:"pattern=^v[0-9]+\\.[0-9]+\\.[0-9]+[-+.0-9A-Za-z]*$,example=v1.34.4+k3s1"`
	// Release is the folder or URL that holds the release's files (k3s,
	// k3s-images.txt, k3s-airgap-images-ARCH.tar.zst, sha256sum-ARCH.txt), or that holds
	// releases in folders of their versions.
	// Default: the release's download folder on GitHub.
	Release string `yaml:"release,omitempty" json:"release,omitempty"`
}

// Host is the machine's own configuration.
type Host struct {
	// Hostname of the node. Default: the appliance's name and a part of the machine ID.
	Hostname string `yaml:"hostname,omitempty" json:"hostname,omitempty" jsonschema:"pattern=^[a-z0-9]([-a-z0-9]*[a-z0-9])?$,maxLength=63"`
	// Users who may log in.
	Users []User `yaml:"users,omitempty" json:"users,omitempty"`
	// Network of the node. Default: DHCP on every wired interface.
	Network Network `yaml:"network,omitempty" json:"network,omitempty"`
}

// User is an account on the node. It has no password: keys only.
type User struct {
	Name              string   `yaml:"name" json:"name" jsonschema:"pattern=^[a-z_][-a-z0-9_]*$,maxLength=32"`
	SSHAuthorizedKeys []string `yaml:"sshAuthorizedKeys,omitempty" json:"sshAuthorizedKeys,omitempty"`
	// Sudo lets the user become root without a password.
	Sudo bool `yaml:"sudo,omitempty" json:"sudo,omitempty"`
}

// Network is a static configuration of one interface.
type Network struct {
	// Interface by name or glob, as in systemd.network(5) [Match] Name=.
	Interface string `yaml:"interface,omitempty" json:"interface,omitempty"`
	// Addresses in CIDR notation. None means DHCP.
	Addresses []string `yaml:"addresses,omitempty" json:"addresses,omitempty"`
	Gateway   string   `yaml:"gateway,omitempty" json:"gateway,omitempty"`
	DNS       []string `yaml:"dns,omitempty" json:"dns,omitempty"`
}

// Disk is the layout of the disk image.
type Disk struct {
	// RootSize is the size of the root file system in GiB.
	RootSize int `yaml:"rootSize,omitempty" json:"rootSize,omitempty" jsonschema:"minimum=2,maximum=1024,default=4"`
}

// Ignition extends the first-boot configuration.
type Ignition struct {
	// Butane is a Butane file (variant fcos 1.4.0 or flatcar 1.0.0) to merge, relative to the definition.
	Butane string `yaml:"butane,omitempty" json:"butane,omitempty"`
}

// Path resolves a path of the definition, which is relative to its folder.
func (d *Definition) Path(p string) string {
	if p == "" || path.IsAbs(p) {
		return p
	}
	return path.Join(d.dir, p)
}

// Arch is the architecture of the platform, as Go, OCI and Debian name it.
func (d *Definition) Arch() string {
	_, arch, _ := strings.Cut(d.Platform, "/")
	return arch
}

// Checksum is a digest over those parts of the definition that a lock is made
// from. What only changes the disk (host, disk, ignition) is not among them, so a
// new SSH key needs no new lock.
func (d *Definition) Checksum() v1.Hash {
	part := Definition{Platform: d.Platform, Base: d.Base, K3s: d.K3s, Stack: d.Stack, Auth: d.Auth, Without: d.Without,
		Overlays: d.Overlays, Images: d.Images, IncludeImages: d.IncludeImages, ExcludeImages: d.ExcludeImages}
	data, err := json.Marshal(part)
	if err != nil {
		panic(err) // a struct of strings always marshals
	}
	return DigestOf(data)
}

func (d *Definition) setDefaults() {
	if d.Platform == "" {
		d.Platform = "linux/amd64"
	}
	if d.Base.Suite == "" {
		d.Base.Suite = "bookworm"
	}
	if d.Disk.RootSize == 0 {
		d.Disk.RootSize = 4
	}
}
