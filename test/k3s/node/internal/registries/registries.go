// Package registries turns k3s's registries.yaml into the hosts.toml files that containerd reads, one folder per
// registry.
package registries

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Registries is the content of registries.yaml.
type Registries struct {
	Mirrors map[string]Mirror `yaml:"mirrors"`
	Configs map[string]Host   `yaml:"configs"`
}

// Mirror lists the places that are asked before, or instead of, a registry.
type Mirror struct {
	Endpoints []string          `yaml:"endpoint"`
	Rewrites  map[string]string `yaml:"rewrite"` // regular expression over the repository's name → replacement
}

// Host is how one host is spoken to.
type Host struct {
	Auth *Auth `yaml:"auth"`
	TLS  *TLS  `yaml:"tls"`
}

// Auth are the credentials for a host.
type Auth struct {
	Username      string `yaml:"username"`
	Password      string `yaml:"password"`
	Auth          string `yaml:"auth"`
	IdentityToken string `yaml:"identity_token"`
}

// TLS names files of a host's CA and client certificate.
type TLS struct {
	CAFile             string `yaml:"ca_file"`
	CertFile           string `yaml:"cert_file"`
	KeyFile            string `yaml:"key_file"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

// Load reads file. A file that does not exist means no mirrors.
func Load(file string) (*Registries, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return new(Registries), nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading registries: %w", err)
	}
	return Parse(file, data)
}

// Parse reads the content of the file called name; an unknown key is an error.
func Parse(name string, data []byte) (*Registries, error) {
	r := new(Registries)
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if len(bytes.TrimSpace(data)) > 0 {
		if err := dec.Decode(r); err != nil {
			return nil, fmt.Errorf("parsing %s: %w", name, err)
		}
	}
	for reg, m := range r.Mirrors {
		for i, e := range m.Endpoints {
			u, err := endpointURL(e)
			if err != nil {
				return nil, fmt.Errorf("%s: mirrors.%s.endpoint[%d]: %w", name, reg, i, err)
			}
			m.Endpoints[i] = u.String()
		}
		for expr := range m.Rewrites {
			if _, err := regexp.Compile(expr); err != nil {
				return nil, fmt.Errorf("%s: mirrors.%s.rewrite: %w", name, reg, err)
			}
		}
	}
	return r, nil
}

// endpointURL adds the scheme (https) and the path (/v2) that may be left out.
func endpointURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("parsing endpoint: %w", err)
	}
	if u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("endpoint %q is not an http or https URL", s)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v2"
	}
	return u, nil
}

// names are the registries that need a hosts.toml: those with a mirror, and those with TLS settings of their own.
func (r *Registries) names() []string {
	set := map[string]bool{}
	for name := range r.Mirrors {
		set[name] = true
	}
	for name, h := range r.Configs {
		if h.TLS != nil {
			set[name] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}
