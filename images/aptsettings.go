package images

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"golang.org/x/net/http/httpproxy"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// aptSettings are those of the machine's apt that hold for whoever fetches from its
// archives: what "lock" reads by apt-get, "mirror" must reach as well.
type aptSettings struct {
	values map[string]string // of apt.conf(5), by names in lower case
	logins []aptLogin
}

// aptLogin is an entry of apt_auth.conf(5).
type aptLogin struct{ machine, user, password string }

// settings reads proxies and logins. A file of logins that this user may not read is
// left out, as apt does.
func (a *apt) settings(ctx context.Context, repos []aptRepository) (*aptSettings, error) {
	dump, err := a.run(ctx, "apt-config", "dump", "--no-empty", "--format", "%f %v%n", "Acquire")
	if err != nil {
		return nil, fmt.Errorf("reading the machine's apt configuration: %w", err)
	}
	s := &aptSettings{values: map[string]string{}}
	for line := range strings.Lines(dump) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		s.values[strings.ToLower(name)] = value
	}
	if err := s.detect(ctx, a, repos); err != nil {
		return nil, err
	}
	// Full paths, each in a line of its own.
	places, err := a.run(ctx, "apt-config", "shell", "", "Dir::Etc::netrc/f", "", "Dir::Etc::netrcparts/f")
	if err != nil {
		return nil, fmt.Errorf("reading the machine's apt configuration: %w", err)
	}
	for line := range strings.Lines(places) {
		place := strings.Trim(strings.TrimSpace(line), "='")
		files := []string{place}
		if info, err := os.Stat(place); err == nil && info.IsDir() {
			if files, err = filepath.Glob(filepath.Join(place, "*.conf")); err != nil {
				return nil, err
			}
		}
		for _, file := range files {
			data, err := bundle.ReadRegular(file, bounds.Credentials)
			if err == nil {
				s.logins = append(s.logins, parseLogins(string(data))...)
			} else if !isNotExist(err) && !errors.Is(err, os.ErrPermission) {
				return nil, fmt.Errorf("reading logins of apt: %w", err)
			}
		}
	}
	return s, nil
}

// detect asks the program that finds proxies, if apt has one, for each archive.
func (s *aptSettings) detect(ctx context.Context, a *apt, repos []aptRepository) error {
	for _, r := range repos {
		u, err := url.Parse(r.uri)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" {
			continue
		}
		program := s.first("acquire::"+u.Scheme+"::proxy-auto-detect", "acquire::"+u.Scheme+"::proxyautodetect")
		name := "acquire::" + u.Scheme + "::proxy::" + u.Hostname()
		if program == "" || s.values[name] != "" {
			continue
		}
		found, err := a.run(ctx, program, r.uri)
		if err != nil {
			return fmt.Errorf("asking %s for the proxy of %s: %w", program, u.Host, err)
		}
		s.values[name] = strings.TrimSpace(found)
	}
	return nil
}

func (s *aptSettings) first(names ...string) string {
	for _, name := range names {
		if v := s.values[strings.ToLower(name)]; v != "" {
			return v
		}
	}
	return ""
}

// proxy is for [http.Transport]. The host's own setting comes first, then apt's for all,
// then the environment's. What is no URL, like DIRECT, means none.
func (s *aptSettings) proxy(req *http.Request) (*url.URL, error) {
	value := s.proxyName(req.URL)
	if value == "" {
		return http.ProxyFromEnvironment(req)
	}
	if !strings.Contains(value, "://") {
		return nil, nil
	}
	if _, err := url.Parse(value); err != nil {
		return nil, errors.New("cannot be reached: Acquire::http::Proxy of apt's configuration is no URL") // which may hold a password
	}
	config := httpproxy.FromEnvironment() // apt heeds no_proxy in all cases
	config.HTTPProxy, config.HTTPSProxy = value, value
	p, err := config.ProxyFunc()(req.URL)
	if err != nil || p == nil || p.User != nil {
		return p, err
	}
	if l, ok := s.login(p); ok {
		withLogin := *p
		withLogin.User = url.UserPassword(l.user, l.password)
		p = &withLogin
	}
	return p, nil
}

func (s *aptSettings) proxyName(u *url.URL) string {
	host := "::proxy::" + u.Hostname()
	if u.Scheme == "https" {
		return s.first("acquire::https"+host, "acquire::http"+host, "acquire::https::proxy", "acquire::http::proxy")
	}
	return s.first("acquire::http"+host, "acquire::http::proxy")
}

// login gives the first login that is for a URL.
func (s *aptSettings) login(u *url.URL) (aptLogin, bool) {
	i := slices.IndexFunc(s.logins, func(l aptLogin) bool { return l.isFor(u) })
	if i < 0 {
		return aptLogin{}, false
	}
	return s.logins[i], true
}

// isFor matches [PROTOCOL://]HOST[:PORT][/PATH]. Without a protocol only https is meant.
func (l aptLogin) isFor(u *url.URL) bool {
	scheme, machine, ok := strings.Cut(l.machine, "://")
	if !ok {
		scheme, machine = "https", l.machine
	}
	host, path, _ := strings.Cut(machine, "/")
	return scheme == u.Scheme && (host == u.Host || host == u.Hostname()) && (path == "" || strings.HasPrefix(u.Path, "/"+path))
}

// parseLogins reads a file of logins: words, whatever is between them.
func parseLogins(data string) []aptLogin {
	var out []aptLogin
	words := strings.Fields(data)
	for i := 0; i+1 < len(words); i++ {
		key, value := words[i], words[i+1]
		switch {
		case key == "machine":
			out = append(out, aptLogin{machine: value})
		case len(out) == 0 || key != "login" && key != "password":
			continue
		case key == "login":
			out[len(out)-1].user = value
		default:
			out[len(out)-1].password = value
		}
		i++
	}
	return out
}

// archives is a transport to what apt's sources name, by apt's settings.
type archives struct {
	*aptSettings
	inner http.RoundTripper
}

// archives shares certificates and the rate of all transfers with the client, but no
// connection: the same host may have another proxy there.
func (c *client) archives(s *aptSettings) (*archives, error) {
	own, err := newClient(c.Options)
	if err != nil {
		return nil, err
	}
	of := func(c *client) *hosts { return c.http.Transport.(*patience).inner.(*hosts) }
	of(own).shared.Proxy = s.proxy
	of(own).pace = of(c).pace
	return &archives{aptSettings: s, inner: own.http.Transport}, nil
}

func (a *archives) RoundTrip(req *http.Request) (*http.Response, error) {
	if l, ok := a.login(req.URL); ok {
		req = withBasic(req, &authn.AuthConfig{Username: l.user, Password: l.password})
	}
	resp, err := a.inner.RoundTrip(req)
	return resp, a.explain(req.URL, err)
}

// explain puts right what is known of errors in general: neither the environment's proxy
// nor --mirror is of use here.
func (a *archives) explain(u *url.URL, err error) error {
	var dns *net.DNSError
	var op *net.OpError
	var refused *proxyError
	ours := a.proxyName(u) != ""
	switch {
	case ours && errors.As(err, &refused) && refused.status == http.StatusProxyAuthRequired:
		return fmt.Errorf("cannot be reached, for the proxy of apt's configuration refuses: its login goes into Acquire::http::Proxy, or into a file /etc/apt/auth.conf.d/NAME.conf: %v", refused)
	case ours && errors.As(err, &refused):
		return fmt.Errorf("cannot be reached, for the proxy of apt's configuration refuses: have the host allowed there, or check Acquire::http::Proxy: %v", refused)
	case ours && errors.As(err, &op) && op.Op == "proxyconnect":
		return fmt.Errorf("cannot be reached, for the proxy cannot: check Acquire::http::Proxy of apt's configuration: %v", op.Err)
	case errors.As(err, &dns), errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("cannot be reached: check the network, name a mirror of the archive under base.sources, or a proxy by Acquire::http::Proxy in apt's configuration: %v", err)
	}
	return err
}

// source is a file of an archive.
func (a *archives) source(archive *url.URL, file string) source {
	return accessSource(file, &fileAccess{inner: a, advice: fmt.Sprintf(
		"put \"machine %s://%s login USER password PASSWORD\" into a file /etc/apt/auth.conf.d/NAME.conf that you may read", archive.Scheme, archive.Host)})
}
