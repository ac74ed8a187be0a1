// Package fairing runs the real Python package Kubeflow Fairing against the node's registry.
package fairing

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"atoll/ignition/registry"
)

// pods is a cluster in which every address is a pod's of the namespace team.
type pods struct{}

func (pods) Pod(context.Context, netip.Addr) (registry.Pod, error) {
	return registry.Pod{Namespace: "team", Name: "notebook"}, nil
}

func (pods) ServiceAccount(context.Context, string) (registry.ServiceAccount, error) {
	return registry.ServiceAccount{}, registry.ErrUnknown
}

// serve runs a node's registry and returns its host.
func serve(t *testing.T) string {
	t.Helper()
	r, err := registry.New(t.Context(), registry.Options{Dir: t.TempDir(), Quota: 1 << 30, Cluster: pods{}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return "localhost:" + port
}

// python installs Fairing and returns an interpreter that has it.
func python(t *testing.T) string {
	t.Helper()
	if os.Getenv("ATOLL_FAIRING") == "" {
		t.Skip("installs a hundred Python packages; ATOLL_FAIRING=1 runs it")
	}
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "python3.11", "-m", "venv", dir).CombinedOutput(); err != nil {
		t.Skipf("no Python 3.11 with venv: %v %s", err, out)
	}
	bin := filepath.Join(dir, "bin/python3")
	cmd := exec.CommandContext(t.Context(), bin, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement", "requirements.txt")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("pip cannot fetch Fairing here: %v %s", err, out)
	}
	return bin
}

// TestAppendBuilder: what Fairing's own append builder pushes is refused with the reason,
// since containerd could not pull it; with the remedy of docs/fairing.md the image is sound.
func TestAppendBuilder(t *testing.T) {
	bin, host := python(t), serve(t)
	base, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(parse(t, host+"/team/base:1"), base); err != nil {
		t.Fatal(err)
	}
	build := func(module string) (string, string, error) {
		cmd := exec.CommandContext(t.Context(), bin, "-W", "ignore", "app.py", module, host+"/team", host+"/team/base:1")
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		return strings.TrimSpace(stdout.String()), stderr.String(), err
	}
	if _, said, err := build("kubeflow.fairing.builders.append.append"); err == nil || !strings.Contains(said, "has the media type of a manifest") || !strings.Contains(said, "docs/fairing.md") {
		t.Errorf("Fairing's own builder: %v\n%s", err, said)
	}
	tag, said, err := build("fairing_append")
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	img, err := remote.Image(parse(t, tag))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(config.Config.Cmd, " "); got != "python /app/hello.py" {
		t.Errorf("the image runs %q", got)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := img.RawConfigFile(); err != nil || int64(len(info)) != m.Config.Size {
		t.Errorf("the manifest says %d bytes, the configuration has %d; %v", m.Config.Size, len(info), err)
	}
}

func parse(t *testing.T, s string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}
