package images

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// accept is what may be answered when a manifest is asked for.
var accept = strings.Join([]string{
	string(types.OCIImageIndex), string(types.DockerManifestList),
	string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
}, ", ")

// client is one run's view of the network.
type client struct {
	*Options
	http    *http.Client
	mirrors map[string]*url.URL // by host, see RegistryHost
	plain   []string            // hosts
	store   *bundle.Store

	mu    sync.Mutex
	repos map[string]*repository
	doors map[string]*door // by scheme and host
}

func newClient(o *Options) (*client, error) {
	c := &client{Options: o.withDefaults(), mirrors: map[string]*url.URL{}, repos: map[string]*repository{}, doors: map[string]*door{}}
	if err := c.parseHosts(); err != nil {
		return nil, err
	}
	inner, err := newHosts(c.Options, c.mirrors)
	if err != nil {
		return nil, err
	}
	c.http = &http.Client{
		CheckRedirect: checkRedirect,
		Transport:     &patience{agent: c.UserAgent, pause: c.pause, most: c.Jobs, log: c.Log, inner: inner},
	}
	return c, nil
}

// repository is where the manifests and blobs of an image are, and how to log in there.
type repository struct {
	host string // who is asked, for errors: the image's registry, or a mirror of it
	base string // URL below which manifests/ and blobs/ are
	repo name.Repository
	door *door
	c    *client

	mu      sync.Mutex
	http    *http.Client // that logs in
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
	scheme := ""
	if u := c.mirrors[hostName(host)]; u != nil {
		host, scheme = u.Host, u.Scheme
		path = strings.TrimPrefix(strings.Trim(u.Path, "/")+"/"+path, "/")
	}
	reg, err := name.NewRegistry(host)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", reference, err)
	}
	host = reg.RegistryStr()
	if scheme == "" || slices.Contains(c.plain, hostName(host)) {
		scheme = c.scheme(host)
	}
	d := c.door(&url.URL{Scheme: scheme, Host: host})
	r := &repository{
		host: hostName(host), repo: reg.Repo(path), door: d, c: c,
		base: escapePlus(d.base.String() + "/v2/" + path + "/"), // a mirror's path may have one
	}
	c.repos[key] = r
	return r, nil
}

// hostOf is who is asked for an image; empty if its reference is none.
func (c *client) hostOf(reference string) string {
	r, err := c.repository(reference)
	if err != nil {
		return ""
	}
	return r.host
}

// scheme is how a registry is asked that no mirror stands for: by https, but for those
// that are said to speak plain http, and for this machine's where nothing is kept of
// certificates for it.
func (c *client) scheme(host string) string {
	if slices.Contains(c.plain, hostName(host)) {
		return "http"
	}
	if isLoopback(host) {
		if config, err := hostTrust(c.certs, host); config == nil && err == nil {
			return "http"
		}
	}
	return "https"
}

// door gives the registry's. The caller holds the lock.
func (c *client) door(base *url.URL) *door {
	d := c.doors[base.String()]
	if d == nil {
		d = &door{base: base, http: c.http}
		c.doors[base.String()] = d
	}
	return d
}

// client gives a client that logs in. It looks for credentials once.
func (r *repository) client(ctx context.Context) (*http.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.http == nil {
		auth, err := authn.Resolve(ctx, r.c.Keychain, r.repo)
		if err != nil {
			return nil, fmt.Errorf("getting credentials for %s: %w", r.host, err)
		}
		r.http = &http.Client{
			CheckRedirect: checkRedirect,
			Transport:     &login{inner: r.c.http.Transport, door: r.door, auth: auth, scope: r.repo.Scope(transport.PullScope)},
		}
	}
	return r.http, nil
}

// manifest gets a manifest or index by tag or by digest, its bytes as they are.
// By digest, bytes that are not what it says are a [bundle.CorruptError].
func (r *repository) manifest(ctx context.Context, tag string, digest v1.Hash) ([]byte, error) {
	what := tag
	if digest.Hex != "" {
		what = digest.String()
	}
	return r.small(ctx, "manifests/"+what, digest)
}

// tagged is what a tag points at now; zero if the registry does not say. It asks by HEAD,
// which no registry counts as a pull, and only for what is good to know.
func (r *repository) tagged(ctx context.Context, tag string) v1.Hash {
	hc, err := r.client(ctx)
	if err != nil {
		return v1.Hash{}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, r.base+"manifests/"+tag, nil)
	if err != nil {
		return v1.Hash{}
	}
	req.Header.Set("Accept", accept)
	resp, err := hc.Do(req)
	if err != nil {
		return v1.Hash{}
	}
	resp.Body.Close()
	h, err := v1.NewHash(resp.Header.Get("Docker-Content-Digest"))
	if err != nil || resp.StatusCode != http.StatusOK {
		return v1.Hash{}
	}
	return h
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

// small gets a body of at most bounds.Manifest, and again if it breaks on the way.
func (r *repository) small(ctx context.Context, path string, digest v1.Hash) ([]byte, error) {
	hc, err := r.client(ctx)
	if err != nil {
		return nil, err
	}
	var failed error
	for try := range smallTries {
		if try > 0 {
			if err := sleep(ctx, r.c.pause<<(try-1)); err != nil {
				return nil, err
			}
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+path, nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", accept)
		data, err := getSmall(hc, req, bounds.Manifest)
		if err == nil {
			got := bundle.DigestOf(data)
			if digest.Hex == "" || got == digest {
				return data, nil
			}
			failed = &bundle.CorruptError{Name: path + " from " + r.host, Want: digest, Got: got}
			continue
		}
		if failed = err; ctx.Err() != nil || !brokeMidway(err) && !r.expired(err) {
			break
		}
	}
	return nil, failed
}

// expired tells the refusal of a storage whose signed URL was good for too short: the
// registry gives another.
func (r *repository) expired(err error) bool {
	var refused *transport.Error
	var login *tokenError
	return errors.As(err, &refused) && refused.StatusCode == http.StatusForbidden && refused.Request.URL.Host != r.door.base.Host && !errors.As(err, &login)
}

// notFound tells whether the registry answered that it does not have it.
func notFound(err error) bool {
	var refused *transport.Error
	var login *tokenError
	return errors.As(err, &refused) && !errors.As(err, &login) && (refused.StatusCode == http.StatusNotFound || refused.StatusCode == http.StatusGone)
}
