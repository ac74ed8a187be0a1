// Package kubeflow is for the tests of the stack of Kubeflow: the real manifests, and what
// comes of them.
package kubeflow

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"atoll/bundle"
	"atoll/bundle/manifest"
	"atoll/bundle/source"
	"atoll/bundle/stack"
	"atoll/images"
)

// archive has the manifests, beside the repository. One of their files is shortened, so
// their tree has another hash than upstream's.
const archive = "shared/upstream/kubeflow-26.03.tar.zst"

// Modified are the sources whose trees are not upstream's.
var Modified = []string{"kubeflow-manifests", "argo-workflows"}

// Unpack returns a folder with Kubeflow's sources, and what names them to atoll. It skips
// the test where they are not there.
func Unpack(t testing.TB) (dir string, sources map[string]string) {
	t.Helper()
	if testing.Short() {
		t.Skip("renders all of Kubeflow; not in -short")
	}
	file, err := beside(archive)
	if err != nil {
		t.Skip("the real manifests are not here: ", err)
	}
	dir = t.TempDir()
	if out, err := exec.Command("tar", "-C", dir, "--zstd", "-xf", file).CombinedOutput(); err != nil {
		t.Fatalf("unpacking %s: %v\n%s", file, err, out)
	}
	return dir, map[string]string{
		"kubeflow-manifests": filepath.Join(dir, "kubeflow-26.03"),
		"argo-workflows":     filepath.Join(dir, "argo-workflows-3.7.3"),
		"jobset":             filepath.Join(dir, "jobset-0.10.1/manifests.yaml"),
	}
}

// Plan renders the stack with a way to sign in.
func Plan(t testing.TB, sources map[string]string, auth string) *bundle.Plan {
	t.Helper()
	s, err := stack.Load("kubeflow")
	if err != nil {
		t.Fatal(err)
	}
	opts := &images.Options{Sources: sources, AllowModified: Modified}
	trees := map[string]*source.Tree{}
	for _, src := range s.Sources {
		if trees[src.Name], err = images.ReadSource(src, opts); err != nil {
			t.Fatal(err)
		}
	}
	definition := &bundle.Definition{Auth: auth, IncludeImages: []string{"*"}}
	plan, _, err := manifest.Plan(t.Context(), manifest.Input{Stack: s, Definition: definition, Sources: trees})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// Root returns the repository's folder, which the tests of a package run below.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && len(data) > 12 && string(data[:13]) == "module atoll\n" {
			return dir, nil
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		return "", os.ErrNotExist
	}
}

// beside returns the path of a file in the folder that the repository's folder's parent is in.
func beside(name string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	file := filepath.Join(root, "../..", name)
	_, err = os.Stat(file)
	return file, err
}
