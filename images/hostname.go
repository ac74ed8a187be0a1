package images

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"atoll/bundle"
)

// hubHosts are Docker Hub's names. Images and users call it by the first, its API answers
// to the second.
var hubHosts = []string{"docker.io", "index.docker.io", "registry-1.docker.io"}

// hostName is what errors call a registry's host, and what options know it by.
func hostName(host string) string {
	host = strings.ToLower(host)
	if slices.Contains(hubHosts, host) {
		return hubHosts[0]
	}
	return host
}

// RegistryHost gives the host of a registry, HOST or HOST:PORT, as [Options] know it: in
// lower case, and docker.io for all names of Docker Hub. No error repeats a password.
func RegistryHost(s string) (string, error) {
	if strings.Contains(s, "@") {
		return "", withoutLogin(s)
	}
	if strings.Contains(s, "://") {
		return "", fmt.Errorf("%q is a URL: a registry is named without one, like quay.io or 10.0.0.7:5000", s)
	}
	if _, err := name.NewRegistry(s); err != nil || s == "" {
		return "", fmt.Errorf("%q is no HOST or HOST:PORT", s)
	}
	return hostName(s), nil
}

// ParseMirror reads an entry of Mirrors. No error repeats what may be a password.
func ParseMirror(host, to string) (string, *url.URL, error) {
	host, err := RegistryHost(host)
	if err != nil {
		return "", nil, fmt.Errorf("mirror: %w", err)
	}
	u, err := url.Parse(to)
	switch {
	case err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil && u.RawQuery == "":
		return host, u, nil
	case strings.Contains(to, "@"):
		return "", nil, fmt.Errorf("mirror of %s: %w", host, withoutLogin(to))
	}
	return "", nil, fmt.Errorf("mirror of %s: what stands for it is not a URL like https://HOST/PATH", host)
}

// withoutLogin says that s, a host or a URL, has credentials in it.
func withoutLogin(s string) error {
	host := s[strings.LastIndexByte(s, '@')+1:]
	if end := strings.IndexAny(host, "/?#"); end >= 0 {
		host = host[:end]
	}
	return fmt.Errorf("credentials do not go into the URL: log in with \"docker login %s\"", cmp.Or(host, "HOST"))
}

// parseHosts reads Mirrors and PlainHTTP.
func (c *client) parseHosts() error {
	for key, to := range c.Mirrors {
		host, u, err := ParseMirror(key, to)
		if err != nil {
			return err
		}
		if old := c.mirrors[host]; old != nil && *old != *u {
			return fmt.Errorf("mirror of %s: there are two", host)
		}
		c.mirrors[host] = u
	}
	for _, s := range c.PlainHTTP {
		host, err := RegistryHost(s)
		if err != nil {
			return fmt.Errorf("plain http: %w", err)
		}
		c.plain = append(c.plain, host)
	}
	return nil
}

// Needless gives the hosts of Mirrors and of PlainHTTP that nobody asks for the k3s release,
// for these images, by the names that they are fetched under, or for sources: nobody would
// else learn that one is misspelt. It gives those that are asked, too. All are sorted. What
// is malformed is left out; whoever fetches it tells.
func (o *Options) Needless(d *bundle.Definition, images []string, sources []bundle.Source) (mirrors, plain, asked []string) {
	c, err := newClient(o)
	if err != nil {
		return nil, nil, nil
	}
	for _, image := range images {
		if host, _, _, _, err := bundle.SplitReference(image); err == nil {
			asked = append(asked, hostName(host))
		}
	}
	urls := []string{k3sBase(d)}
	for _, src := range sources {
		urls = append(urls, src.Archive())
	}
	for _, to := range urls {
		if u, err := url.Parse(to); err == nil && u.Host != "" {
			asked = append(asked, hostName(u.Host))
		}
	}
	known := slices.Clone(asked)
	for host, u := range c.mirrors {
		if !slices.Contains(asked, host) {
			mirrors = append(mirrors, host)
		}
		known = append(known, hostName(u.Host))
	}
	for _, host := range c.plain {
		if !slices.Contains(known, host) {
			plain = append(plain, host)
		}
	}
	for _, list := range []*[]string{&mirrors, &plain, &asked} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return mirrors, plain, asked
}
