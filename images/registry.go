package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle"
)

// maxManifest bounds a manifest, an index and a config, in bytes. Registries
// refuse larger manifests, and so does a bundle.
const maxManifest = 4 << 20

// accept is what may be answered when a manifest is asked for.
var accept = strings.Join([]string{
	string(types.OCIImageIndex), string(types.DockerManifestList),
	string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
}, ", ")

// client is one run's view of the network.
type client struct {
	*Options
	http    *http.Client
	mirrors map[string]*url.URL

	mu    sync.Mutex
	repos map[string]*repository
}

func newClient(o *Options) (*client, error) {
	c := &client{Options: o.withDefaults(), mirrors: map[string]*url.URL{}, repos: map[string]*repository{}}
	schemes := map[string]string{}
	for host, to := range c.Mirrors {
		u, err := url.Parse(to)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
			return nil, fmt.Errorf("mirror of %s: %q is not a URL like https://HOST/PATH", host, to)
		}
		c.mirrors[host], schemes[u.Host] = u, u.Scheme
	}
	c.http = &http.Client{
		CheckRedirect: checkRedirect,
		Transport: &patience{
			agent: c.UserAgent, pause: c.pause, schemes: schemes, log: c.Log,
			inner: &http.Transport{
				Proxy:                 http.ProxyFromEnvironment,
				DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
				ForceAttemptHTTP2:     true,
				MaxIdleConnsPerHost:   c.Jobs,
				IdleConnTimeout:       90 * time.Second,
				TLSHandshakeTimeout:   15 * time.Second,
				ResponseHeaderTimeout: c.idle,
			},
		},
	}
	return c, nil
}

// checkRedirect keeps a registry's credentials from the storage it redirects to,
// which may be another port of the same machine.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > 10 {
		return errors.New("stopped after 10 redirects")
	}
	if req.URL.Host != via[0].URL.Host {
		req.Header.Del("Authorization")
	}
	return nil
}

// repository is where the manifests and blobs of an image are, and how to log in there.
type repository struct {
	host string // who is asked: the image's registry, or a mirror of it
	base string // URL below which manifests/ and blobs/ are

	connect func(context.Context) (*http.Client, error)
	mu      sync.Mutex
	http    *http.Client // connected
	configs map[v1.Hash]func() ([]byte, error)
}

// repository finds the repository of a canonical reference. It does not dial.
func (c *client) repository(reference string) (*repository, error) {
	host, path, _, _, err := bundle.SplitReference(reference)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := host + "/" + path
	if r := c.repos[key]; r != nil {
		return r, nil
	}
	var opts []name.Option
	if u := c.mirrors[host]; u != nil {
		host = u.Host
		path = strings.TrimPrefix(strings.Trim(u.Path, "/")+"/"+path, "/")
		if u.Scheme == "http" {
			opts = append(opts, name.Insecure)
		}
	}
	reg, err := name.NewRegistry(host, opts...)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", reference, err)
	}
	repo := reg.Repo(path)
	r := &repository{
		host: host,
		base: escapePlus(reg.Scheme() + "://" + reg.RegistryStr() + "/v2/" + path + "/"), // a mirror's path may have one
		connect: func(ctx context.Context) (*http.Client, error) {
			auth, err := authn.Resolve(ctx, c.Keychain, repo)
			if err != nil {
				return nil, fmt.Errorf("getting credentials for %s: %w", host, err)
			}
			t, err := transport.NewWithContext(ctx, reg, auth, c.http.Transport, []string{repo.Scope(transport.PullScope)})
			if err != nil {
				return nil, err
			}
			return &http.Client{Transport: t, CheckRedirect: checkRedirect}, nil
		},
	}
	c.repos[key] = r
	return r, nil
}

// client logs in, once.
func (r *repository) client(ctx context.Context) (*http.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.http == nil {
		var err error
		if r.http, err = r.connect(ctx); err != nil {
			return nil, err
		}
	}
	return r.http, nil
}

// bodyTries is how often a small body is asked for before it is called corrupt.
const bodyTries = 3

// manifest gets a manifest or index by tag or by digest, its bytes as they are.
// By digest, bytes that are not what it says are a [bundle.CorruptError].
func (r *repository) manifest(ctx context.Context, tag string, digest v1.Hash) ([]byte, error) {
	what := tag
	if digest.Hex != "" {
		what = digest.String()
	}
	return r.small(ctx, "manifests/"+what, digest)
}

// config gets a blob that is as small as a manifest, once for all that ask for it.
func (r *repository) config(ctx context.Context, digest v1.Hash) ([]byte, error) {
	r.mu.Lock()
	if r.configs == nil {
		r.configs = map[v1.Hash]func() ([]byte, error){}
	}
	get := r.configs[digest]
	if get == nil {
		get = sync.OnceValues(func() ([]byte, error) { return r.small(ctx, "blobs/"+digest.String(), digest) })
		r.configs[digest] = get
	}
	r.mu.Unlock()
	return get()
}

// small gets a body of at most maxManifest.
func (r *repository) small(ctx context.Context, path string, digest v1.Hash) ([]byte, error) {
	var err error
	for range bodyTries {
		var data []byte
		if data, err = r.smallOnce(ctx, path); err != nil {
			var refused *transport.Error
			if ctx.Err() != nil || errors.As(err, &refused) || !errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, err
			}
			continue // cut short
		}
		got := bundle.DigestOf(data)
		if digest.Hex == "" || got == digest {
			return data, nil
		}
		err = &bundle.CorruptError{Name: path + " from " + r.host, Want: digest, Got: got}
	}
	return nil, err
}

func (r *repository) smallOnce(ctx context.Context, path string) ([]byte, error) {
	hc, err := r.client(ctx)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxManifest)
	}
	if resp.ContentLength >= 0 && int64(len(data)) != resp.ContentLength {
		return nil, fmt.Errorf("reading %s: %w", path, io.ErrUnexpectedEOF)
	}
	return data, nil
}

// explain tells what failed, where, and what the user can do.
func explain(err error, what, host string) error {
	var refused *transport.Error
	if errors.As(err, &refused) {
		switch refused.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Errorf("%s: %s denies access: check the name, or log in with \"docker login %s\": %w", what, host, host, err)
		case http.StatusNotFound:
			return fmt.Errorf("%s: %s does not have it: check the name and tag: %w", what, host, err)
		}
	}
	var dial *net.OpError
	var dns *net.DNSError
	if errors.As(err, &dns) || errors.As(err, &dial) && dial.Op == "dial" {
		return fmt.Errorf("%s: %s cannot be reached: check the network, or send its traffic elsewhere with --mirror: %w", what, host, err)
	}
	return fmt.Errorf("%s at %s: %w", what, host, err)
}

// notFound tells whether the registry answered that it does not have it.
func notFound(err error) bool {
	var refused *transport.Error
	return errors.As(err, &refused) && (refused.StatusCode == http.StatusNotFound || refused.StatusCode == http.StatusGone)
}
