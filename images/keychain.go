package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

const (
	// helperPrefix is what the names of all helpers' programs begin with.
	helperPrefix = "docker-credential-"
	// maxHelper bounds what of a helper's words an error repeats, in bytes.
	maxHelper = 500
)

// keychain finds credentials where docker, podman and their helpers keep them. Unlike
// [authn.DefaultKeychain] it looks into every file, not the first only; gives what a
// helper says when it fails; and lets one that hangs hold up its own host alone.
type keychain struct {
	files   []string
	time    time.Duration // that a helper may take
	log     *slog.Logger
	load    func() ([]authFile, error)
	mu      sync.Mutex
	helpers map[helperCall]func() (authn.AuthConfig, error)
	lacking sync.Map // helpers that were told not to be there
}

// helperName is what the names of helpers are made of: it leads to no other program than
// one of this beginning on the path.
var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$`)

type helperCall struct{ helper, server string }

// authFile is a docker config.json or a podman auth.json.
type authFile struct {
	path    string
	Auths   map[string]json.RawMessage `json:"auths"` // read when wanted: one may be broken
	Helpers map[string]string          `json:"credHelpers"`
	Store   string                     `json:"credsStore"`
}

// NewKeychain gives the default of [Options], for several calls: together they ask a
// helper once for a host, and tell once of one that is not installed.
func NewKeychain(log *slog.Logger) authn.Keychain { return newKeychain(authFiles(), defaultIdle, log) }

func newKeychain(files []string, helper time.Duration, log *slog.Logger) *keychain {
	k := &keychain{files: files, time: helper, log: log, helpers: map[helperCall]func() (authn.AuthConfig, error){}}
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
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		add(dir, "containers", "auth.json")
	} else {
		add("/run/containers", strconv.Itoa(os.Getuid()), "auth.json") // as podman does
	}
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
		data, err := bundle.ReadRegular(path, bounds.Credentials)
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
		auth, err := k.askFor(ctx, f, names)
		if err != nil {
			return nil, err
		}
		if auth != (authn.AuthConfig{}) {
			return authn.FromConfig(auth), nil
		}
		auth, err = f.find(r.String(), names)
		if err != nil {
			return nil, err
		}
		if auth != (authn.AuthConfig{}) {
			return authn.FromConfig(auth), nil
		}
	}
	return authn.Anonymous, nil
}

// askFor asks the helper that a file names for a host, or for all. A helper is asked for
// the name that the file has, under which podman or docker stored the credentials. One for
// all that is not installed is told of and left out: most hosts need none.
func (k *keychain) askFor(ctx context.Context, f authFile, names []string) (authn.AuthConfig, error) {
	helper, server, forAll := f.Store, names[0], true
	for _, name := range names {
		if h, ok := f.Helpers[name]; ok {
			helper, server, forAll = h, name, false
			break
		}
	}
	if helper == "" {
		return authn.AuthConfig{}, nil
	}
	auth, err := k.ask(ctx, helper, server)
	if forAll && errors.Is(err, exec.ErrNotFound) {
		if _, told := k.lacking.LoadOrStore(helper, true); !told {
			k.log.Warn("credential helper is not installed, going on without it", "helper", helperPrefix+helper, "named in", f.path)
		}
		return authn.AuthConfig{}, nil
	}
	if err != nil {
		return authn.AuthConfig{}, fmt.Errorf("%w: mend it, or take it out of %s, which names it", err, f.path)
	}
	return auth, nil
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
// docker asks helpers for.
func hostNames(host string) []string {
	if hostName(host) == hubHosts[0] {
		return append([]string{"https://index.docker.io/v1/"}, hubHosts...)
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
	name := helperPrefix + helper
	if !helperName.MatchString(helper) {
		return authn.AuthConfig{}, fmt.Errorf("credential helper %.60q is not the name of one", helper)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it gave no answer for %s", limit))
	defer cancel()
	cmd := exec.CommandContext(ctx, name, "get")
	cmd.Stdin = strings.NewReader(server)
	// A helper is often a script: what it runs must not outlive it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for those that left the group and hold its output open
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
		if words := complaint(said, stderr.String()); words != "" {
			err = fmt.Errorf("%w: it says %q", err, words)
		}
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

// complaint is what a helper that failed says of it, in one line. Errors come on stdout, by
// the protocol; many helpers use stderr. A secret may be in both.
func complaint(stdout, stderr string) string {
	words, _, _ := strings.Cut(stdout, "\n")
	if strings.Contains(stdout, "{") || strings.Contains(stdout, "Secret") {
		words = ""
		var answer struct{ Secret string }
		_, object, _ := strings.Cut(stdout, "{")
		if json.NewDecoder(strings.NewReader("{"+object)).Decode(&answer) != nil {
			return ""
		}
		if answer.Secret != "" {
			stderr = strings.ReplaceAll(stderr, answer.Secret, "…")
		}
	}
	words = strings.Join(strings.Fields(words+" "+stderr), " ")
	return strings.ToValidUTF8(words[:min(len(words), maxHelper)], "")
}

// scantBuffer is a buffer that takes no more than credentials may have.
type scantBuffer struct{ bytes.Buffer }

func (b *scantBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > bounds.Token {
		return 0, errors.New("it says too much")
	}
	return b.Buffer.Write(p)
}
