package registries

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// noServer is the last resort of a registry whose own address must not be asked: it may not pull, so containerd
// never dials it and a pull that no mirror answers fails at once.
const noServer = "https://default-registry-endpoint-disabled.invalid"

// Rewriter starts whatever rewrites repository names on the way to endpoint and returns the address to use
// in its place.
type Rewriter func(endpoint string, m Mirror, tls *TLS) (string, error)

// Hosts returns the hosts.toml files: folder name → content. With noDefault, a registry that has a mirror (by name
// or through "*") is never asked itself, as k3s's disable-default-registry-endpoint has it.
func (r *Registries) Hosts(noDefault bool, rewrite Rewriter) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range r.names() {
		var b strings.Builder
		m, mirrored := r.Mirrors[name]
		if mirrored && noDefault {
			fmt.Fprintf(&b, "server = %s\ncapabilities = [\"push\"]\n", strconv.Quote(noServer))
		} else if name != "*" {
			writeTLS(&b, "", r.tls(name))
		}
		for _, e := range m.Endpoints {
			u, err := url.Parse(e)
			if err != nil {
				return nil, fmt.Errorf("mirrors.%s: %w", name, err)
			}
			tls := r.tls(u.Host)
			if len(m.Rewrites) > 0 {
				if e, err = rewrite(e, m, tls); err != nil {
					return nil, fmt.Errorf("mirrors.%s: %w", name, err)
				}
				tls = nil
			}
			fmt.Fprintf(&b, "\n[host.%s]\n  capabilities = [\"pull\", \"resolve\"]\n", strconv.Quote(e))
			if !strings.HasSuffix(e, "/v2") {
				b.WriteString("  override_path = true\n")
			}
			writeTLS(&b, "  ", tls)
		}
		out[hostDir(name)] = b.String()
	}
	return out, nil
}

func (r *Registries) tls(host string) *TLS { return r.Configs[host].TLS }

func writeTLS(b *strings.Builder, indent string, t *TLS) {
	if t == nil {
		return
	}
	if t.CAFile != "" {
		fmt.Fprintf(b, "%sca = [%s]\n", indent, strconv.Quote(t.CAFile))
	}
	if t.CertFile != "" || t.KeyFile != "" {
		fmt.Fprintf(b, "%sclient = [[%s, %s]]\n", indent, strconv.Quote(t.CertFile), strconv.Quote(t.KeyFile))
	}
	if t.InsecureSkipVerify {
		fmt.Fprintf(b, "%sskip_verify = true\n", indent)
	}
}

// hostDir is the folder that containerd looks in for a registry: "_default" stands for every registry without
// one, and a port is written host_port_.
func hostDir(name string) string {
	if name == "*" {
		return "_default"
	}
	if i := strings.LastIndex(name, ":"); i > 0 {
		return name[:i] + "_" + name[i+1:] + "_"
	}
	return name
}
