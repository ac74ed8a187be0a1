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
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
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
// since containerd could not pull it; with the remedy of docs/fairing.md the image is sound,
// whatever the base image is like.
func TestAppendBuilder(t *testing.T) {
	bin, host := python(t), serve(t)
	build := func(module, base string) (string, string, error) {
		cmd := exec.CommandContext(t.Context(), bin, "-W", "ignore", "app.py", module, host+"/team", base)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		return strings.TrimSpace(stdout.String()), stderr.String(), err
	}
	docker, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	config, err := docker.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", "amd64"
	if docker, err = mutate.ConfigFile(docker, config); err != nil {
		t.Fatal(err)
	}
	layer, err := random.Layer(1000, types.OCILayer)
	if err != nil {
		t.Fatal(err)
	}
	oci, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), layer)
	if err != nil {
		t.Fatal(err)
	}
	bases := map[string]string{}
	for name, push := range map[string]func(name.Reference) error{
		"docker": func(r name.Reference) error { return remote.Write(r, docker) },
		"oci":    func(r name.Reference) error { return remote.Write(r, oci) },
		"index":  func(r name.Reference) error { return remote.WriteIndex(r, platforms(t, oci)) },
	} {
		bases[name] = host + "/team/" + name + ":1"
		if err := push(parse(t, bases[name])); err != nil {
			t.Fatal(err)
		}
	}
	if _, said, err := build("kubeflow.fairing.builders.append.append", bases["docker"]); err == nil || !strings.Contains(said, "has the media type of a manifest") || !strings.Contains(said, "docs/fairing.md") {
		t.Errorf("Fairing's own builder: %v\n%s", err, said)
	}
	if _, said, err := build("kubeflow.fairing.builders.append.append", bases["oci"]); err == nil || !strings.Contains(said, "does not support OCI manifests") {
		t.Errorf("Fairing's own builder, of a base image in OCI's format: %v\n%s", err, said)
	}
	for name, base := range bases {
		tag, said, err := build("fairing_append", base)
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, said)
			continue
		}
		checkBuilt(t, parse(t, tag))
	}
}

// platforms is an index of an image for linux/amd64, between others.
func platforms(t *testing.T, img v1.Image) v1.ImageIndex {
	t.Helper()
	var all []mutate.IndexAddendum
	for _, p := range []v1.Platform{{OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "amd64"}, {OS: "unknown", Architecture: "unknown"}} {
		add := img
		if p.Architecture != "amd64" {
			other, err := random.Image(10, 1)
			if err != nil {
				t.Fatal(err)
			}
			add = mutate.MediaType(other, types.OCIManifestSchema1)
		}
		all = append(all, mutate.IndexAddendum{Add: add, Descriptor: v1.Descriptor{Platform: &p}})
	}
	return mutate.IndexMediaType(mutate.AppendManifests(empty.Index, all...), types.OCIImageIndex)
}

// checkBuilt makes sure that an image is sound and runs what was asked for.
func checkBuilt(t *testing.T, tag name.Reference) {
	t.Helper()
	img, err := remote.Image(tag)
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
	if len(config.RootFS.DiffIDs) != 2 {
		t.Errorf("the image has %d layers, want the base image's and one more", len(config.RootFS.DiffIDs))
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := img.RawConfigFile(); err != nil || int64(len(info)) != m.Config.Size {
		t.Errorf("the manifest says %d bytes, the configuration has %d; %v", m.Config.Size, len(info), err)
	}
	oci := m.MediaType == types.OCIManifestSchema1
	for _, l := range m.Layers {
		if (l.MediaType == types.OCILayer) != oci {
			t.Errorf("a %s has a layer of type %s", m.MediaType, l.MediaType)
		}
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
