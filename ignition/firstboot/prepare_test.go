package firstboot

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.yaml.in/yaml/v3"

	"atoll/bundle"
	"atoll/bundle/bundletest"
)

// release is a k3s release in small.
var release = map[string]string{"k3s": "#!k3s", "k3s-images.txt": "x", "k3s-airgap-images-amd64.tar.zst": "images"}

// pack makes a bundle with a k3s release and a plan.
func pack(t *testing.T, files map[string]string, plan *bundle.Plan) *bundle.Bundle {
	t.Helper()
	f := bundletest.New(t)
	f.Lab(t)
	var out []bundle.Artifact
	for _, a := range f.Artifacts(t) {
		switch {
		case a.Type == bundle.ArtifactK3s:
			a.Files = nil
			for name, text := range files {
				a.Files = append(a.Files, bundle.File{Name: name, MediaType: "application/octet-stream", Digest: f.Put(t, []byte(text)), Size: int64(len(text))})
			}
		case a.Type == bundle.ArtifactPlan && plan != nil:
			data, err := plan.Encode()
			if err != nil {
				t.Fatal(err)
			}
			a.Files[0].Digest, a.Files[0].Size = f.Put(t, data), int64(len(data))
		}
		out = append(out, a)
	}
	path := filepath.Join(t.TempDir(), "bundle.tar")
	if err := bundle.Pack(t.Context(), path, f.Store, f.Lock, out, nil); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// anyDigest is for what takes a bundle that is open already.
var anyDigest = bundle.DigestOf(nil).String()

// newRoot is a node's root file system after Ignition.
func newRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	put(t, root, "etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	put(t, root, appliance, `{"name": "lab", "epoch": 1767323045, "bundle": "`+anyDigest+`"}`)
	return root
}

func put(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, root, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// tree lists the files of a root with their content, times and inodes.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, root+"/")] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func testOptions(t *testing.T) *Options {
	return &Options{Status: filepath.Join(t.TempDir(), "run", "status.json")}
}

func TestPrepare(t *testing.T) {
	b, root, o := pack(t, release, nil), newRoot(t), testOptions(t)
	if err := Prepare(t.Context(), b, root, o); err != nil {
		t.Fatal(err)
	}
	if got := get(t, root, k3sBinary); got != release["k3s"] {
		t.Errorf("k3s is %q", got)
	}
	if info, err := os.Stat(filepath.Join(root, k3sBinary)); err != nil || info.Mode() != 0o755 {
		t.Errorf("k3s: %v, %v", info.Mode(), err)
	}
	for _, link := range []string{"kubectl", "crictl", "ctr"} {
		if to, err := os.Readlink(filepath.Join(root, "usr/local/bin", link)); to != "k3s" {
			t.Errorf("%s leads to %q: %v", link, to, err)
		}
	}
	digest := bundle.DigestOf([]byte("images")).Hex[:12]
	if got := get(t, root, k3sImages+"/k3s-airgap-images-amd64-"+digest+".tar.zst"); got != "images" {
		t.Errorf("airgap images are %q", got)
	}
	if got := get(t, root, k3sImages+"/.cache.json"); got != "" {
		t.Errorf(".cache.json is %q, not empty", got)
	}
	if got := get(t, root, nodeConfig); !strings.Contains(got, "node-name: lab-01234567\n") {
		t.Errorf("node's configuration is %q", got)
	}
	var registries struct {
		Mirrors map[string]struct{ Endpoint []string }
	}
	if err := yaml.Unmarshal([]byte(get(t, root, k3sConfig+"/registries.yaml")), &registries); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"*", "docker.io", "quay.io", "ghcr.io", "gcr.io", "registry.example:5000"} {
		if e := registries.Mirrors[host].Endpoint; len(e) != 1 || e[0] != "http://127.0.0.1:5000" {
			t.Errorf("pulls from %s go to %q", host, e)
		}
	}
	if e := registries.Mirrors["registry.atoll.svc.cluster.local"].Endpoint; len(e) != 1 || e[0] != "http://127.0.0.1:5001" {
		t.Errorf("pulls of what users pushed go to %q", e)
	}
	made := read(t, filepath.Join(root, SecretsPath))
	if made[statusToken].Value == "" || made[registryPassword].Value == "" || made[registryPassword].User != "root" {
		t.Errorf("secrets of the node's own: %v", slices.Sorted(maps.Keys(made)))
	}
	password := filepath.Join(filepath.Dir(o.Status), registryPassword)
	if info, err := os.Stat(password); err != nil || info.Mode().Perm()&0o037 != 0 {
		t.Errorf("others may read root's password: %v, %v", info.Mode(), err)
	}
	if data, err := os.ReadFile(password); err != nil || strings.TrimSpace(string(data)) != made[registryPassword].Value {
		t.Errorf("the registry does not read root's password: %v", err)
	}
	s, err := ReadStatus(o.Status)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range s.Phases {
		names = append(names, p.Name+" "+p.State)
	}
	if got, want := strings.Join(names, ", "), "prepare ready, registry pending, k3s pending, registry-rw pending, one pending"; got != want || s.Appliance != "lab" {
		t.Errorf("status of %s: %s, want %s", s.Appliance, got, want)
	}
}

// TestPrepareAgain boots a second time, after all that may happen in between.
func TestPrepareAgain(t *testing.T) {
	b, root, o := pack(t, release, nil), newRoot(t), testOptions(t)
	prepare := func() {
		t.Helper()
		if err := Prepare(t.Context(), b, root, o); err != nil {
			t.Fatal(err)
		}
	}
	prepare()
	put(t, root, installedPath, "{}") // the stack was ready
	before := tree(t, root)
	old, err := os.Stat(filepath.Join(root, k3sBinary))
	if err != nil {
		t.Fatal(err)
	}

	// k3s has its own things in the images' cache; the machine got another name.
	put(t, root, k3sImages+"/.cache.json", `{"x": 1}`)
	put(t, root, appliance, `{"name": "lab", "hostname": "other", "bundle": "`+anyDigest+`"}`)
	// The power was cut in the middle, a sector went bad, an earlier bundle left its images.
	put(t, root, "usr/local/bin/.k3s.tmp-123", "#!")
	put(t, root, k3sImages+"/k3s-airgap-images-amd64-000000000000.tar.zst", "old")
	prepare()
	now, err := os.Stat(filepath.Join(root, k3sBinary))
	if err != nil || !os.SameFile(old, now) {
		t.Errorf("k3s was copied again: %v", err)
	}
	put(t, root, k3sBinary, "#!K3s")
	prepare()

	after := tree(t, root)
	before[k3sImages+"/.cache.json"] = `{"x": 1}`
	before[appliance] = after[appliance]
	for name, text := range before {
		if after[name] != text {
			t.Errorf("%s is %q, was %q", name, after[name], text)
		}
		delete(after, name)
	}
	for name := range after {
		t.Errorf("%s was left", name)
	}
}

func TestPrepareKeepsOthersRegistries(t *testing.T) {
	b, root := pack(t, release, nil), newRoot(t)
	put(t, root, k3sConfig+"/registries.yaml", "mirrors: {}\n")
	if err := Prepare(t.Context(), b, root, testOptions(t)); err != nil {
		t.Fatal(err)
	}
	if got := get(t, root, k3sConfig+"/registries.yaml"); got != "mirrors: {}\n" {
		t.Errorf("registries.yaml is %q", got)
	}
}

func TestPrepareHostname(t *testing.T) {
	b, root := pack(t, release, nil), newRoot(t)
	put(t, root, appliance, `{"name": "lab", "hostname": "box", "epoch": 1, "bundle": "`+anyDigest+`"}`)
	if err := Prepare(t.Context(), b, root, testOptions(t)); err != nil {
		t.Fatal(err)
	}
	if got := get(t, root, nodeConfig); !strings.Contains(got, "node-name: box\n") {
		t.Errorf("node's configuration is %q", got)
	}
}

func TestPrepareFails(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		spoil func(t *testing.T, root string, b *bundle.Bundle)
		want  string
	}{
		{"no k3s", map[string]string{"k3s-airgap-images-amd64.tar.zst": "x"}, nil, "k3s"},
		{"no airgap images", map[string]string{"k3s": "x"}, nil, "airgap"},
		{"no machine ID", release, func(t *testing.T, root string, _ *bundle.Bundle) { put(t, root, machineID, "") }, "machine-id"},
		{"bad facts", release, func(t *testing.T, root string, _ *bundle.Bundle) { put(t, root, appliance, "{") }, appliance},
		{"no bundle named", release, func(t *testing.T, root string, _ *bundle.Bundle) { put(t, root, appliance, `{"name": "lab"}`) }, "names no bundle"},
		{"damaged manifest", release, func(t *testing.T, _ string, b *bundle.Bundle) { flipBlob(t, b, b.Images()[0].Manifest) }, "image " /* and which */},
		{"flipped byte", release, func(t *testing.T, _ string, b *bundle.Bundle) { flip(t, b, "#!k3s") }, "corrupt"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, root, o := pack(t, tc.files, nil), newRoot(t), testOptions(t)
			if tc.spoil != nil {
				tc.spoil(t, root, b)
			}
			err := Prepare(t.Context(), b, root, o)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want an error with %q", err, tc.want)
			}
			if s, err := ReadStatus(o.Status); err == nil && (s.State != bundle.StateFailed || !strings.Contains(s.Error, tc.want)) {
				t.Errorf("status is %+v", s)
			}
			if _, err := os.Stat(filepath.Join(root, k3sBinary)); err == nil && tc.name != "no airgap images" && tc.name != "no machine ID" {
				t.Error("k3s is there")
			}
		})
	}
}

// flip changes the one blob of a bundle that holds text.
func flip(t *testing.T, b *bundle.Bundle, text string) {
	t.Helper()
	flipBlob(t, b, bundle.DigestOf([]byte(text)))
}

// flipBlob changes a blob's first byte.
func flipBlob(t *testing.T, b *bundle.Bundle, h v1.Hash) {
	t.Helper()
	offset, _, ok := b.Section(h)
	if !ok {
		t.Fatalf("no blob %s", h)
	}
	f, err := os.OpenFile(b.Path(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{'?'}, offset)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestCheckSpace(t *testing.T) {
	if err := checkSpace(t.TempDir(), 1); err != nil {
		t.Error(err)
	}
	err := checkSpace(t.TempDir(), 1<<60)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "larger disk") {
		t.Errorf("got %v", err)
	}
}

// TestSetClock only looks at the side that changes nothing: no test sets the clock.
func TestSetClock(t *testing.T) {
	p := preparer{root: "/", facts: facts{Epoch: time.Now().Add(-time.Hour).Unix()}}
	before := time.Now()
	if err := p.setClock(); err != nil || time.Since(before) > time.Minute {
		t.Errorf("%v", err)
	}
}
