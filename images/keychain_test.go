package images

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

func TestKeychain(t *testing.T) {
	dir := t.TempDir()
	entry := func(user string) string {
		return fmt.Sprintf(`{"auth":%q}`, base64.StdEncoding.EncodeToString([]byte(user+":p")))
	}
	writeFiles(t, dir, map[string][]byte{
		"docker.json": []byte(`{"auths":{"https://index.docker.io/v1/":` + entry("hub") + `,"https://legacy.test/v1/":` + entry("legacy") +
			`,"quay.io":` + entry("quay") + `,"broken.test":{"auth":"!"},"empty.test":{},"token.test":{"identitytoken":"i"}},"HttpHeaders":{"a":"b"}}`),
		"podman.json": []byte(`{"auths":{"quay.io/team":` + entry("team") + `,"only.test/a/b":` + entry("ab") + `,"only.test":` + entry("only") +
			`,"empty.test":` + entry("second") + `}}`),
		"nothing.json": nil,
	})
	k := newKeychain([]string{filepath.Join(dir, "absent.json"), filepath.Join(dir, "nothing.json"), filepath.Join(dir, "docker.json"), filepath.Join(dir, "podman.json")}, time.Second, nil)
	for ref, want := range map[string]string{
		"busybox": "hub", "docker.io/team/x": "hub", "legacy.test/x": "legacy", "quay.io/x/y": "quay",
		"quay.io/team/x": "quay", // the first file that has any
		"only.test/a/b":  "ab", "only.test/a/b/c": "ab", "only.test/a/bc": "only", "only.test:5000/a": "", "none.test/x": "",
		"empty.test/x": "second", "token.test/x": "token i", "broken.test/x": "error",
	} {
		repo, err := name.NewRepository(ref)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		a, err := authn.Resolve(t.Context(), k, repo)
		if err != nil {
			got = "error"
			if !strings.Contains(err.Error(), "docker.json") {
				t.Errorf("%s: error does not name the file: %v", ref, err)
			}
		} else if c, err := a.Authorization(); err != nil {
			t.Error(err)
		} else if got = c.Username; c.IdentityToken != "" {
			got = "token " + c.IdentityToken
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", ref, got, want)
		}
	}
	writeFiles(t, dir, map[string][]byte{"bad.json": []byte("{")})
	repo, _ := name.NewRepository("quay.io/x")
	if _, err := newKeychain([]string{filepath.Join(dir, "bad.json")}, time.Second, nil).Resolve(repo); err == nil || !strings.Contains(err.Error(), "bad.json") {
		t.Errorf("got %v, want an error that names the file", err)
	}
}

func TestAuthFiles(t *testing.T) {
	t.Setenv("HOME", "/h")
	for _, k := range []string{"REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"} {
		t.Setenv(k, "")
	}
	if got, want := authFiles(), []string{"/h/.docker/config.json", fmt.Sprintf("/run/containers/%d/auth.json", os.Getuid()), "/h/.config/containers/auth.json"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	t.Setenv("REGISTRY_AUTH_FILE", "/r.json")
	t.Setenv("DOCKER_CONFIG", "/d")
	t.Setenv("XDG_RUNTIME_DIR", "/run/1")
	t.Setenv("XDG_CONFIG_HOME", "/x")
	if got, want := authFiles(), []string{"/r.json", "/d/config.json", "/run/1/containers/auth.json", "/x/containers/auth.json"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// countingHelper is a helper that writes down what it is asked for, in the folder that it is in.
const countingHelper = `#!/bin/sh
dir=$(dirname "$0")
cat >> "$dir/asked"
echo >> "$dir/asked"
echo '{"Username":"<token>","Secret":"i"}'
`

// installHelper puts a helper and a docker config into a folder.
func installHelper(t *testing.T, name, script, config string) (dir string, files []string) {
	t.Helper()
	dir = t.TempDir()
	program := "docker-credential-" + name
	writeFiles(t, dir, map[string][]byte{"config.json": []byte(config), program: []byte(script)})
	if err := os.Chmod(filepath.Join(dir, program), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return dir, []string{filepath.Join(dir, "config.json")}
}

func mustRepo(t *testing.T, ref string) name.Repository {
	t.Helper()
	repo, err := name.NewRepository(ref)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// TestHelperIsAskedOnce: one call of a helper serves all repositories of a host; it is
// asked for the name by which the file knows the host, as docker and podman do.
func TestHelperIsAskedOnce(t *testing.T) {
	for config, want := range map[string]string{
		`{"credsStore":"counting"}`: "quay.io\nhttps://index.docker.io/v1/\n",
		`{"credHelpers":{"docker.io":"counting","https://quay.io":"counting"}}`:                           "https://quay.io\ndocker.io\n",
		`{"credHelpers":{"https://index.docker.io/v1/":"counting","docker.io":"a","quay.io":"counting"}}`: "quay.io\nhttps://index.docker.io/v1/\n",
	} {
		dir, files := installHelper(t, "counting", countingHelper, config)
		k := newKeychain(files, time.Minute, nil)
		for _, ref := range []string{"quay.io/a", "quay.io/b", "busybox", "quay.io/a"} {
			a, err := k.Resolve(mustRepo(t, ref))
			if err != nil {
				t.Fatal(err)
			}
			if c, err := a.Authorization(); err != nil || c.IdentityToken != "i" {
				t.Errorf("%s: %s: got %+v, %v", config, ref, c, err)
			}
		}
		asked, err := os.ReadFile(filepath.Join(dir, "asked"))
		if err != nil || string(asked) != want {
			t.Errorf("%s: helper was asked for %q, %v, want %q", config, asked, err, want)
		}
	}
}

// TestHelperThatIsNotInstalled: one for all hosts keeps none away, and is told of once.
// One for a host is that host's.
func TestHelperThatIsNotInstalled(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string][]byte{
		"config.json": []byte(`{"credsStore":"atoll-test-absent","credHelpers":{"own.test":"atoll-test-absent"}}`),
		"auth.json":   []byte(`{"auths":{"quay.io":{"username":"u","password":"p"},"own.test":{"username":"u","password":"p"}}}`),
	})
	var log logged
	k := newKeychain([]string{filepath.Join(dir, "config.json"), filepath.Join(dir, "auth.json")}, time.Minute, log.logger())
	for ref, want := range map[string]string{"quay.io/a": "u", "none.test/a": "", "busybox": ""} {
		a, err := k.Resolve(mustRepo(t, ref))
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if c, err := a.Authorization(); err != nil || c.Username != want {
			t.Errorf("%s: got %+v, %v, want user %q", ref, c, err, want)
		}
	}
	if n := strings.Count(log.String(), "docker-credential-atoll-test-absent"); n != 1 {
		t.Errorf("got %d warnings, want 1: %s", n, &log)
	}
	if _, err := k.Resolve(mustRepo(t, "own.test/a")); err == nil || !strings.Contains(err.Error(), "docker-credential-atoll-test-absent") {
		t.Errorf("own.test: got %v, want an error that names the helper", err)
	}
}

// TestHelperIsKilledWhole: nothing that a helper started outlives it.
func TestHelperIsKilledWhole(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "held")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	_, files := installHelper(t, "forking", "#!/bin/sh\nsleep 60 > "+fifo+" 2>&1 &\nwait\n", `{"credsStore":"forking"}`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		f, err := os.Open(fifo) // once the child has it, too
		cancel()
		if err == nil {
			_, err = io.ReadAll(f) // until the child is gone
			f.Close()
		}
		ended <- err
	}()
	if _, err := newKeychain(files, time.Hour, nil).ResolveContext(ctx, mustRepo(t, "quay.io/a")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the helper's child lives on")
	}
}

// TestHelperNames: the name of a helper leads to no other program than a helper.
func TestHelperNames(t *testing.T) {
	dir := t.TempDir()
	marker := filepath.Join(dir, "ran")
	program := "#!/bin/sh\ntouch " + marker + "\n"
	for _, path := range []string{"evil", "docker-credential-", "docker-credential-x/evil", "docker-credential--x", "docker-credential-a b", "docker-credential-.x"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(program), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Chdir(dir)
	for _, name := range []string{"x/../../evil", "../evil", "x/evil", "/evil", "..", "", "-x", "a b", ".x", "x\x00", "x\n", `x\evil`, strings.Repeat("a", 101)} {
		if _, err := runHelper(t.Context(), time.Minute, name, "h.test"); err == nil || !strings.Contains(err.Error(), "is not the name of one") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a program ran")
	}
}
