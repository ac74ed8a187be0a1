package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// maxHelper bounds what of a helper's words an error repeats, in bytes.
const maxHelper = 500

// keychain finds credentials where docker, podman and their helpers keep them. Unlike
// [authn.DefaultKeychain] it looks into every file, not the first only; gives what a
// helper says when it fails; and lets one that hangs hold up its own host alone.
type keychain struct {
	files   []string
	time    time.Duration // that a helper may take
	load    func() ([]authFile, error)
	mu      sync.Mutex
	helpers map[helperCall]func() (authn.AuthConfig, error)
}

type helperCall struct{ helper, server string }

// authFile is a docker config.json or a podman auth.json.
type authFile struct {
	path    string
	Auths   map[string]json.RawMessage `json:"auths"` // read when wanted: one may be broken
	Helpers map[string]string          `json:"credHelpers"`
	Store   string                     `json:"credsStore"`
}

func newKeychain(files []string, helper time.Duration) *keychain {
	k := &keychain{files: files, time: helper, helpers: map[helperCall]func() (authn.AuthConfig, error){}}
	k.load = sync.OnceValues(k.read)
	return k
}

// authFiles are the files that may hold credentials, the most particular first.
func authFiles() []string {
	var out []string
	add := func(dir string, more ...string) {
		if dir != "" {
			out = append(out, filepath.Join(append([]string{dir}, more...)...))
		}
	}
	home, _ := os.UserHomeDir()
	add(os.Getenv("REGISTRY_AUTH_FILE"))
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		add(dir, "config.json")
	} else {
		add(home, ".docker", "config.json")
	}
	add(os.Getenv("XDG_RUNTIME_DIR"), "containers", "auth.json")
	if dir := os.Getenv("XDG_CONFIG_HOME"); dir != "" {
		add(dir, "containers", "auth.json")
	} else {
		add(home, ".config", "containers", "auth.json")
	}
	return out
}

// read reads the files that are there.
func (k *keychain) read() ([]authFile, error) {
	var out []authFile
	for _, path := range k.files {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading credentials: %w", err)
		}
		f := authFile{path: path}
		if len(bytes.TrimSpace(data)) > 0 {
			if err := json.Unmarshal(data, &f); err != nil {
				return nil, fmt.Errorf("reading credentials: %s: %w", path, err)
			}
		}
		out = append(out, f)
	}
	return out, nil
}

// Resolve is for [authn.Keychain].
func (k *keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), r)
}

// ResolveContext gives a registry's or repository's credentials: in each file those of
// its longest name, and before them those of a helper.
func (k *keychain) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	files, err := k.load()
	if err != nil {
		return nil, err
	}
	names := hostNames(r.RegistryStr())
	for _, f := range files {
		helper := f.Store
		for _, name := range names {
			if h, ok := f.Helpers[name]; ok {
				helper = h
				break
			}
		}
		if helper != "" {
			auth, err := k.ask(ctx, helper, names[0])
			if err != nil {
				return nil, fmt.Errorf("%w (it is named in %s)", err, f.path)
			}
			if auth != (authn.AuthConfig{}) {
				return authn.FromConfig(auth), nil
			}
		}
		auth, err := f.find(r.String(), names)
		if err != nil {
			return nil, err
		}
		if auth != (authn.AuthConfig{}) {
			return authn.FromConfig(auth), nil
		}
	}
	return authn.Anonymous, nil
}

// find looks for a repository, what it is in, and its host. What it gives is zero if
// there is none of them.
func (f *authFile) find(repository string, hosts []string) (auth authn.AuthConfig, err error) {
	_, path, _ := strings.Cut(repository, "/")
	for {
		for _, host := range hosts {
			key := host
			if path != "" {
				key += "/" + path
			}
			if data, ok := f.Auths[key]; ok {
				if err := json.Unmarshal(data, &auth); err != nil {
					return auth, fmt.Errorf("reading credentials: %s, for %s: %w", f.path, key, err)
				}
			}
			if auth != (authn.AuthConfig{}) {
				return auth, nil
			}
		}
		if path == "" {
			return auth, nil
		}
		path = path[:max(0, strings.LastIndexByte(path, '/'))]
	}
}

// hostNames are the keys that a host's credentials may be under; the first is what
// helpers are asked for.
func hostNames(host string) []string {
	if host == "docker.io" || host == "index.docker.io" {
		return []string{"https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"}
	}
	return []string{host, "https://" + host, "https://" + host + "/", "https://" + host + "/v1/", "https://" + host + "/v2/", "http://" + host}
}

// ask runs a helper, once for each server. No credentials are no error.
func (k *keychain) ask(ctx context.Context, helper, server string) (authn.AuthConfig, error) {
	k.mu.Lock()
	call := helperCall{helper, server}
	get := k.helpers[call]
	if get == nil {
		get = sync.OnceValues(func() (authn.AuthConfig, error) { return runHelper(ctx, k.time, helper, server) })
		k.helpers[call] = get
	}
	k.mu.Unlock()
	return get()
}

func runHelper(ctx context.Context, limit time.Duration, helper, server string) (authn.AuthConfig, error) {
	name := "docker-credential-" + helper
	if strings.ContainsAny(helper, `/\`) {
		return authn.AuthConfig{}, fmt.Errorf("credential helper %q is a path, not a name", helper)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it gave no answer for %s", limit))
	defer cancel()
	cmd := exec.CommandContext(ctx, name, "get")
	cmd.Stdin = strings.NewReader(server)
	cmd.WaitDelay = time.Second // for children of it that hold its output open
	var stdout, stderr scantBuffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var answer struct{ Username, Secret string }
	badAnswer := json.Unmarshal(stdout.Bytes(), &answer)
	said := strings.TrimSpace(stdout.String())
	switch {
	case context.Cause(ctx) != nil:
		err = context.Cause(ctx)
	case err != nil && strings.HasPrefix(said, "credentials not found"):
		return authn.AuthConfig{}, nil
	case err != nil:
		// Errors come on stdout, by the protocol; many helpers use stderr.
		words := stderr.String()
		if badAnswer != nil {
			words = said + " " + words
		} else if answer.Secret != "" {
			words = strings.ReplaceAll(words, answer.Secret, "…")
		}
		words = strings.Join(strings.Fields(words), " ")
		err = fmt.Errorf("%w: it says %q", err, words[:min(len(words), maxHelper)])
	case badAnswer != nil:
		err = errors.New("its answer is not the JSON that it should be") // which may hold the secret
	}
	if err != nil {
		return authn.AuthConfig{}, fmt.Errorf("credential helper %s for %s: %w", name, server, err)
	}
	if answer.Username == "<token>" {
		return authn.AuthConfig{IdentityToken: answer.Secret}, nil
	}
	return authn.AuthConfig{Username: answer.Username, Password: answer.Secret}, nil
}

// scantBuffer is a buffer that takes no more than credentials may have.
type scantBuffer struct{ bytes.Buffer }

func (b *scantBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxToken {
		return 0, errors.New("it says too much")
	}
	return b.Buffer.Write(p)
}
