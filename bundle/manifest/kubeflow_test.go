package manifest_test

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"

	"atoll/bundle/manifest"
)

// upstream is where the real manifests of Kubeflow 26.03 lie beside the repository, and
// the list of its images, which was made by hand.
const upstream = "../../../shared/upstream/"

// kubeflow reads them. The four bases that 26.03 takes from elsewhere lie beside it.
func kubeflow(t *testing.T) fstest.MapFS {
	t.Helper()
	f, err := os.Open(upstream + "kubeflow-26.03.tar.zst")
	if err != nil {
		t.Skip("the real manifests are not here: ", err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	bases := strings.NewReplacer(
		"https://github.com/argoproj/argo-workflows/manifests/base/crds/minimal?ref=v3.7.3", "ARGO/base/crds/minimal",
		"https://github.com/argoproj/argo-workflows/manifests/base/workflow-controller?ref=v3.7.3", "ARGO/base/workflow-controller",
		"https://github.com/argoproj/argo-workflows/manifests/cluster-install-no-crds/workflow-controller-rbac?ref=v3.7.3", "ARGO/cluster-install-no-crds/workflow-controller-rbac",
		"https://github.com/kubernetes-sigs/jobset/releases/download/v0.10.1/manifests.yaml", "ROOT/jobset-0.10.1/manifests.yaml")
	tree := fstest.MapFS{}
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return tree
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		name := path.Clean(h.Name)
		if path.Base(name) == "kustomization.yaml" {
			root := strings.TrimSuffix(strings.Repeat("../", strings.Count(name, "/")), "/")
			text := bases.Replace(string(data))
			text = strings.ReplaceAll(text, "ARGO/", root+"/argo-workflows-3.7.3/manifests/")
			data = []byte(strings.ReplaceAll(text, "ROOT/", root+"/"))
		}
		tree[name] = &fstest.MapFile{Data: data}
	}
}

// TestKubeflow finds exactly the images of the list, with a rule for each that is nowhere
// written as one string, and renders the objects that upstream's own kustomization gives.
func TestKubeflow(t *testing.T) {
	objs, err := manifest.Render(kubeflow(t), "kubeflow-26.03/example")
	if err != nil {
		t.Fatal(err)
	}
	if len(objs) != 675 {
		t.Errorf("%d objects, want 675", len(objs))
	}
	found, err := manifest.Images(objs)
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(upstream + "images-26.03.tsv")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for line := range bytes.Lines(list) {
		ref, _, _ := strings.Cut(string(line), "\t")
		want[ref] = true
	}
	rules := map[string]bool{}
	for _, im := range found.Images {
		if !want[im.Reference] {
			t.Errorf("%s is no image: %v", im.Reference, im.Where)
		}
		delete(want, im.Reference)
		for _, p := range im.Where {
			rules[p.Rule] = true
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(want)) {
		t.Errorf("%s was missed", ref)
	}
	for _, rule := range []string{"Istio's sidecar", "Istio's init container", "name and version", "KFP's artifact proxy"} {
		if !rules[rule] {
			t.Errorf("rule %q finds nothing: it is out of date", rule)
		}
	}
	var doubts []string
	for _, d := range found.Doubts {
		doubts = append(doubts, d.Text)
	}
	if got := strings.Join(doubts, " "); got != "proxyv2 proxyv2 pilot disabled" {
		t.Errorf("doubts: %s", got)
	}
}
