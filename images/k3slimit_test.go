package images

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// endless sends one file without end, or says that it has a size that none has.
type endless struct {
	http.Handler
	name string
	told int64 // that it says it has; 0: it does not say
	sent int64
}

func (e *endless) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if path.Base(r.URL.Path) != e.name {
		e.Handler.ServeHTTP(w, r)
		return
	}
	if e.told > 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(e.told, 10))
	}
	line := []byte(strings.Repeat("x", 1<<16-1) + "\n")
	for {
		n, err := w.Write(line)
		e.sent += int64(n)
		if err != nil {
			return
		}
	}
}

func TestK3sEndless(t *testing.T) {
	for _, tc := range []struct {
		name  string
		told  int64
		limit int64
	}{
		{"sha256sum-amd64.txt", 0, bounds.K3sSums},
		{"k3s-images.txt", 0, bounds.K3sImages},
		{"k3s-images.txt", 1 << 40, bounds.K3sImages},
		{"k3s", 1 << 40, bounds.K3sBinary},
		{"k3s-airgap-images-amd64.tar.zst", 1 << 40, bounds.K3sAirgap},
	} {
		e := &endless{Handler: http.FileServer(http.Dir(release(t))), name: tc.name, told: tc.told}
		srv := httptest.NewServer(e)
		d := definition(t, "")
		d.K3s.Release = srv.URL
		c, err := newClient(nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.resolveK3s(context.Background(), d)
		if want := strconv.FormatInt(tc.limit>>20, 10) + " MiB, which no k3s release has"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, want)
		}
		srv.CloseClientConnections()
		srv.Close()
		if e.sent > bounds.K3sSums*16 {
			t.Errorf("%s: %d bytes were sent", tc.name, e.sent)
		}
	}
}

// TestK3sOddFolder has a folder for a release in which one file is a pipe, or a device, or
// has no end.
func TestK3sOddFolder(t *testing.T) {
	for _, name := range []string{"sha256sum-amd64.txt", "k3s", "k3s-images.txt", "k3s-airgap-images-amd64.tar.zst"} {
		for what, make := range map[string]func(string) error{
			"a pipe":             func(path string) error { return syscall.Mkfifo(path, 0o600) },
			"a character device": func(path string) error { return os.Symlink("/dev/zero", path) },
			"MiB, which no k3s release has": func(path string) error {
				f, err := os.Create(path)
				return errors.Join(err, f.Truncate(1<<40), f.Close())
			},
		} {
			dir := release(t)
			if err := errors.Join(os.Remove(filepath.Join(dir, name)), make(filepath.Join(dir, name))); err != nil {
				t.Fatal(err)
			}
			d := definition(t, "")
			d.K3s.Release = dir
			c, err := newClient(nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.resolveK3s(context.Background(), d)
			if err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("%s is %s: %v", name, what, err)
			}
		}
	}
}

// TestOddFiles: no pipe in the place of a file of ours is waited for.
func TestOddFiles(t *testing.T) {
	dir := t.TempDir()
	pipe := func(name string) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), syscall.Mkfifo(path, 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var odd *bundle.NotRegularError
	config := pipe("config.json")
	if _, err := newKeychain([]string{config}, defaultIdle, nil).load(); !errors.As(err, &odd) {
		t.Errorf("docker's configuration: %v", err)
	}
	pipe("certs/ca.test/ca.crt")
	pipe("certs/client.test/a.cert")
	pipe("certs/client.test/a.key")
	for _, host := range []string{"ca.test", "client.test"} {
		if _, err := hostTrust([]string{filepath.Join(dir, "certs")}, host); !errors.As(err, &odd) {
			t.Errorf("certificates of %s: %v", host, err)
		}
	}
	src := bundle.Source{Name: "a", URL: "https://h.test/a.yaml"}
	if _, err := ReadSource(src, &Options{Sources: map[string]string{"a": pipe("a.yaml")}}); err == nil {
		t.Error("a source that is a pipe: no error")
	}
	src = bundle.Source{Name: "a", Repository: "https://h.test/a", Ref: "v1"}
	if _, err := ReadSource(src, &Options{Sources: map[string]string{"a": filepath.Dir(pipe("tree/a.yaml"))}}); err == nil {
		t.Error("a source with a pipe in it: no error")
	}
}
