package kubeflow

import (
	"os"
	"path/filepath"
	"testing"

	"atoll/bundle"
	"atoll/bundle/manifest"
	"atoll/bundle/source"
	"atoll/bundle/stack"
	"atoll/images"
)

// archive has the manifests, where the variable KUBEFLOW names none. One of their files is
// shortened, so their tree has another hash than upstream's.
const archive = "shared/upstream/kubeflow-26.03.tar.zst"

// Manifests returns the path of upstream's manifests, for [Options]: what the variable
// KUBEFLOW names, as for make, or those beside the repository. It skips the test where they
// are not there.
func Manifests(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("works on all of Kubeflow; not in -short")
	}
	path, err := os.Getenv("KUBEFLOW"), error(nil)
	if path == "" {
		path, err = beside(archive)
	} else {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Skip("the real manifests are not here: ", err)
	}
	return path
}

// Unpack returns a folder and Kubeflow's sources in it. It skips the test where there are none.
func Unpack(t testing.TB) (dir string, sources Sources) {
	t.Helper()
	path := Manifests(t)
	dir = t.TempDir()
	sources, err := unpack(t.Context(), path, filepath.Join(dir, "sources"))
	if err != nil {
		t.Fatal(err)
	}
	return dir, sources
}

// Plan renders the stack with a way to sign in.
func Plan(t testing.TB, sources Sources, auth string) *bundle.Plan {
	t.Helper()
	s, err := stack.Load("kubeflow")
	if err != nil {
		t.Fatal(err)
	}
	opts := &images.Options{Sources: sources, AllowModified: modified}
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

// beside returns the path of a file in the folder that the repository is in.
func beside(name string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	file := filepath.Join(root, "..", name)
	_, err = os.Stat(file)
	return file, err
}
