package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"atoll/bundle"
	"atoll/images"
)

// needs skips a test where a program it cannot do without is missing.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
}

// TestServe builds and pushes all images to Debian's registry, then locks and
// mirrors them from there as a lab appliance does.
func TestServe(t *testing.T) {
	needs(t, "docker-registry", "go")
	ctx := t.Context()
	r, err := startRegistry(ctx, "127.0.0.1:0", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.stop()
	if err := push(ctx, r.url, extra{}); err != nil {
		t.Fatal(err)
	}
	var wanted []images.Wanted
	for _, li := range labImages() {
		for _, n := range li.names {
			wanted = append(wanted, images.Wanted{Reference: n, Tier: bundle.TierRequired})
		}
	}
	wanted = append(wanted, images.Wanted{Reference: pinnedName, Tier: bundle.TierRequired})
	d, l := lock(t, r.url, wanted)
	s, err := bundle.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := images.Mirror(ctx, d, l, s, options(r.url)); err != nil {
		t.Fatal(err)
	}
	byName := map[string]bundle.LockedImage{}
	for _, im := range l.Images {
		byName[im.Reference] = im
		if im.Size < 100 {
			t.Errorf("%s has %d bytes", im.Reference, im.Size)
		}
	}
	if im := byName[pinnedName]; im.Digest.String() != pinnedDigest || im.Manifest == im.Digest {
		t.Errorf("pinned image is locked as %+v", im)
	}
	if one, stable := byName["ghcr.io/atoll-lab/probe:1.0"], byName["ghcr.io/atoll-lab/probe:stable"]; one.Digest != stable.Digest || one.Digest.Hex == "" {
		t.Errorf("probe's two tags have digests %s and %s", one.Digest, stable.Digest)
	}
}

func options(registry string) *images.Options {
	o := &images.Options{Mirrors: map[string]string{}}
	for _, host := range []string{"ghcr.io", "quay.io", "docker.io"} {
		o.Mirrors[host] = registry + "/" + host
	}
	return o
}

// lock makes a lock of images alone: of a k3s release and an archive of Debian
// packages that are as small as they can be.
func lock(t *testing.T, registry string, wanted []images.Wanted) (*bundle.Definition, *bundle.Lock) {
	t.Helper()
	needs(t, "apt-get")
	d, err := bundle.ParseDefinition("appliance.yaml", []byte("name: lab\nk3s: {version: v1.34.4+k3s1}\nstack: lab\n"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, data string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sums := ""
	for _, f := range []string{"k3s", "k3s-images.txt", "k3s-airgap-images-amd64.tar.zst"} {
		write(f, f)
		sums += bundle.DigestOf([]byte(f)).Hex + "  " + f + "\n"
	}
	write("sha256sum-amd64.txt", sums)
	deb := "content of a package"
	packages := "Package: base\nVersion: 1\nArchitecture: amd64\nEssential: yes\nPriority: required\nFilename: pool/base_1_amd64.deb\nSize: 20\nSHA256: " + bundle.DigestOf([]byte(deb)).Hex + "\n"
	write("pool/base_1_amd64.deb", deb)
	write("dists/bookworm/main/binary-amd64/Packages", packages)
	write("dists/bookworm/Release", "Label: Lab\nSuite: bookworm\nDate: Mon, 23 Nov 2026 11:22:37 UTC\nComponents: main\nArchitectures: amd64\nSHA256:\n "+
		bundle.DigestOf([]byte(packages)).Hex+" "+strconv.Itoa(len(packages))+" main/binary-amd64/Packages\n")
	d.K3s.Release = dir
	d.Base.Sources = []string{"deb [trusted=yes] file:" + dir + " bookworm main"}
	l, err := images.Resolve(t.Context(), d, wanted, bundle.DigestOf(nil), nil, nil, options(registry))
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Files) != 3 || len(l.Packages) != 1 || l.Epoch.Year() != 2026 {
		t.Fatalf("lock is %+v", l)
	}
	data, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if l, err = bundle.ParseLock("appliance.lock", data); err != nil {
		t.Fatal(err)
	}
	return d, l
}

func TestServePassesExitCodeOn(t *testing.T) {
	needs(t, "docker-registry", "go")
	err := serve(t.Context(), "127.0.0.1:0", t.TempDir(), extra{}, []string{"sh", "-c", `case $1 in http://127.0.0.1:*) exit 7;; esac`, "sh", "{registry}"})
	if err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("got %v, want the command's exit code", err)
	}
	if err := serve(t.Context(), "0.0.0.0:0", t.TempDir(), extra{}, []string{"true"}); err == nil || !strings.Contains(err.Error(), "not a loopback") {
		t.Errorf("got %v, want a refusal of an address that others reach", err)
	}
}
