package images

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	k := newKeychain([]string{filepath.Join(dir, "absent.json"), filepath.Join(dir, "nothing.json"), filepath.Join(dir, "docker.json"), filepath.Join(dir, "podman.json")}, time.Second)
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
	if _, err := newKeychain([]string{filepath.Join(dir, "bad.json")}, time.Second).Resolve(repo); err == nil || !strings.Contains(err.Error(), "bad.json") {
		t.Errorf("got %v, want an error that names the file", err)
	}
}

func TestAuthFiles(t *testing.T) {
	t.Setenv("HOME", "/h")
	for _, k := range []string{"REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"} {
		t.Setenv(k, "")
	}
	if got, want := authFiles(), []string{"/h/.docker/config.json", "/h/.config/containers/auth.json"}; !slices.Equal(got, want) {
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

// TestHelperIsAskedOnce: one call of a helper serves all repositories of a host.
func TestHelperIsAskedOnce(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string][]byte{
		"config.json": []byte(`{"credsStore":"counting"}`),
		"docker-credential-counting": []byte("#!/bin/sh\ncat >> " + dir + "/asked\necho >> " + dir + `/asked
echo '{"Username":"<token>","Secret":"i"}'` + "\n"),
	})
	if err := os.Chmod(filepath.Join(dir, "docker-credential-counting"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	k := newKeychain([]string{filepath.Join(dir, "config.json")}, 10*time.Second)
	for _, ref := range []string{"quay.io/a", "quay.io/b", "busybox", "quay.io/a"} {
		repo, err := name.NewRepository(ref)
		if err != nil {
			t.Fatal(err)
		}
		a, err := k.Resolve(repo)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := a.Authorization(); err != nil || c.IdentityToken != "i" {
			t.Errorf("%s: got %+v, %v", ref, c, err)
		}
	}
	asked, err := os.ReadFile(filepath.Join(dir, "asked"))
	if want := "quay.io\nhttps://index.docker.io/v1/\n"; err != nil || string(asked) != want {
		t.Errorf("helper was asked for %q, %v, want %q", asked, err, want)
	}
}
