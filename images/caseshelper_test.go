package images

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atoll/test/regtest"
)

// helper is a credential helper that talks.
const helper = `#!/bin/sh
read host
case "$MODE" in
none) echo "credentials not found in native keychain"; exit 1;;
fail) echo "vault is sealed" >&2; exit 1;;
leak) echo '{"Username":"u","Secret":"s3cret"}'; echo "vault is sealed, and s3cret was in it" >&2; exit 1;;
words) echo "vault is sealed"; echo "and more"; exit 1;;
warnleak) echo "WARN: slow vault"; cat <<E
{"Username":"u","Secret":"s3cret"}
E
echo "vault is sealed, and s3cret was in it" >&2; exit 1;;
cutleak) echo '{"Username":"u","Secret":"s3cret'; echo "s3cret is what vault said" >&2; exit 1;;
dead) exit 1;;
garbage) echo "s3cret is no JSON"; exit 0;;
hang) exec sleep 100;;
flood) exec timeout 100 yes;;
esac
echo "WARN: a newer helper is available {" >&2
echo '{"ServerURL":"'$host'","Username":"u","Secret":"s3cret"}'
`

// helperSetUp puts the helper where the docker config names it, for the registry alone.
func helperSetUp(t *testing.T, r *regtest.Registry, mode string) (config string) {
	t.Helper()
	bin, conf := t.TempDir(), t.TempDir()
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("DOCKER_CONFIG", conf)
	t.Setenv("MODE", mode)
	config = filepath.Join(conf, "config.json")
	text := `{"credHelpers":{"lab.test":"noisy","` + r.Host + `":"noisy"}}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if mode != "removed" {
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-noisy"), []byte(helper), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

// TestHelperThatTalks (15): helpers that warn, fail, hang or are not there.
func TestHelperThatTalks(t *testing.T) {
	for _, tc := range []struct {
		mode string
		want outcome
		says []string
	}{
		{"", well, nil},
		{"none", fails, []string{"denies access", "docker login"}}, // goes on without
		{"fail", fails, []string{"docker-credential-noisy", "vault is sealed"}},
		{"leak", fails, []string{"docker-credential-noisy"}},
		{"words", fails, []string{`it says "vault is sealed": mend it`}},
		{"warnleak", fails, []string{`exit status 1: it says "vault is sealed, and … was in it": mend it`}},
		{"cutleak", fails, []string{"exit status 1: mend it"}},
		{"dead", fails, []string{"exit status 1: mend it"}},
		{"garbage", fails, []string{"docker-credential-noisy"}},
		{"removed", fails, []string{"docker-credential-noisy", "not found in $PATH: mend it, or take it out of ", "config.json, which names it"}},
		{"hang", fails, []string{"docker-credential-noisy"}},
		{"flood", fails, []string{"docker-credential-noisy"}},
	} {
		t.Run("mode "+tc.mode, func(t *testing.T) {
			r, open := regtest.New(t), regtest.New(t)
			tiny(r, "lab/tiny:1")
			tiny(open, "lab/open:1")
			r.Login(&regtest.Auth{User: "u", Password: "s3cret", Basic: true})
			helperSetUp(t, r, tc.mode)
			var log logged
			o := caseOptions(r)
			o.Keychain, o.Log = nil, log.logger()
			o.Mirrors["open.test"] = open.URL()
			locked, err := lockCase(t, o, "lab.test/lab/tiny:1")
			if tc.want == well && err != nil || tc.want == fails && err == nil {
				t.Errorf("got %v", err)
			}
			for _, part := range tc.says {
				if err != nil && !strings.Contains(err.Error(), part) {
					t.Errorf("error does not say %q: %v", part, err)
				}
			}
			checkNoSecret(t, err)
			if strings.Contains(log.String(), "s3cret") {
				t.Errorf("log tells a secret: %s", &log)
			}
			if err == nil {
				if err := mirrorCase(t, o, newStore(t), locked); err != nil {
					t.Error(err)
				}
			}
			// It is none of the other hosts' business.
			if _, err := lockCase(t, o, "open.test/lab/open:1"); err != nil {
				t.Errorf("another host: %v", err)
			}
		})
	}
}

// TestHelperInterrupted (15): Ctrl-C does not wait for a helper.
func TestHelperInterrupted(t *testing.T) {
	r := regtest.New(t)
	tiny(r, "lab/tiny:1")
	r.Login(&regtest.Auth{User: "u", Password: "s3cret", Basic: true})
	helperSetUp(t, r, "hang")
	o := caseOptions(r)
	o.Keychain, o.idle = nil, time.Hour
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		c, err := newClient(o)
		if err == nil {
			_, err = c.resolveImages(ctx, []Wanted{{Reference: "lab.test/lab/tiny:1"}}, "amd64")
		}
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits for the helper")
	}
}
