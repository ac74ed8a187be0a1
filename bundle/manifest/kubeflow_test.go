package manifest_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/klauspost/compress/zstd"

	"atoll/bundle"
	"atoll/bundle/manifest"
	"atoll/bundle/source"
	"atoll/bundle/stack"
)

// upstream is where the real manifests of Kubeflow 26.03 lie beside the repository, and
// the list of its images, which was made by hand.
const upstream = "../../../shared/upstream/"

// unpacked has the trees and the file there, by their top folders.
var unpacked = sync.OnceValues(func() (map[string]fstest.MapFS, error) {
	f, err := os.Open(upstream + "kubeflow-26.03.tar.zst")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	trees := map[string]fstest.MapFS{}
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return trees, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return nil, err
		}
		top, name, _ := strings.Cut(path.Clean(h.Name), "/")
		if trees[top] == nil {
			trees[top] = fstest.MapFS{}
		}
		trees[top][name] = &fstest.MapFile{Data: data}
	}
})

// sourcesOf gives the sources of Kubeflow; the test skips where they are not at hand.
func sourcesOf(t testing.TB) map[string]*source.Tree {
	t.Helper()
	trees, err := unpacked()
	if err != nil {
		t.Skip("the real manifests are not here: ", err)
	}
	folder := func(top string) *source.Tree {
		dir := t.TempDir()
		if err := os.CopyFS(dir, trees[top]); err != nil {
			t.Fatal(err)
		}
		tree, err := source.ReadFolder(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		return tree
	}
	return map[string]*source.Tree{
		"kubeflow-manifests": folder("kubeflow-26.03"),
		"argo-workflows":     folder("argo-workflows-3.7.3"),
		"jobset":             source.FromFile("manifests.yaml", trees["jobset-0.10.1"]["manifests.yaml"].Data),
	}
}

// upstreamStack has a component for each line of upstream's example, as it is there.
func upstreamStack(t testing.TB, paths ...string) *stack.Stack {
	t.Helper()
	s := &stack.Stack{
		Name: "upstream",
		Sources: []bundle.Source{
			{Name: "kubeflow-manifests", Repository: "https://github.com/kubeflow/manifests", Ref: "26.03"},
			{Name: "argo-workflows", Repository: "https://github.com/argoproj/argo-workflows", Ref: "v3.7.3"},
			{Name: "jobset", URL: "https://github.com/kubernetes-sigs/jobset/releases/download/v0.10.1/manifests.yaml"},
		},
	}
	fsys := fstest.MapFS{}
	phase := stack.Phase{Name: "all", Timeout: time.Minute}
	for i, p := range paths {
		c := fmt.Sprintf("c%02d", i)
		fsys[c+"/kustomization.yaml"] = &fstest.MapFile{Data: fmt.Appendf(nil, "resources: ['https://github.com/kubeflow/manifests//%s?ref=26.03']\n", p)}
		phase.Components = append(phase.Components, c)
	}
	s.FS, s.Phases = fsys, []stack.Phase{phase}
	return s
}

func examplePaths(t testing.TB) []string {
	t.Helper()
	trees, err := unpacked()
	if err != nil {
		t.Skip("the real manifests are not here: ", err)
	}
	var paths []string
	for _, m := range regexp.MustCompile(`(?m)^- \.\./(\S+)`).FindAllSubmatch(trees["kubeflow-26.03"]["example/kustomization.yaml"].Data, -1) {
		paths = append(paths, string(m[1]))
	}
	return paths
}

// planObjects gives the objects of a plan, by what tells them apart.
func planObjects(t testing.TB, p *bundle.Plan) map[string]map[string]any {
	t.Helper()
	out := map[string]map[string]any{}
	for _, phase := range p.Phases {
		objs, err := manifest.Parse(phase.Name, []byte(phase.Manifest))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objs {
			meta := o.Value["metadata"].(map[string]any)
			out[fmt.Sprint(o.Value["apiVersion"], " ", o.Value["kind"], " ", meta["namespace"], "/", meta["name"])] = o.Value
		}
	}
	return out
}

// TestKubeflow renders upstream's components one by one, and holds them against what
// upstream's own kustomization of all gives; and it finds exactly the images of the list,
// with a rule for each that is nowhere written as one string.
func TestKubeflow(t *testing.T) {
	sources := sourcesOf(t)
	cached := t.TempDir()
	plan := func(s *stack.Stack) (*bundle.Plan, *manifest.Findings) {
		p, found, err := manifest.Plan(t.Context(), manifest.Input{Stack: s, Definition: &bundle.Definition{}, Sources: sources, Cache: cached})
		if err != nil {
			t.Fatal(err)
		}
		return p, found
	}
	whole, _ := plan(upstreamStack(t, "example"))
	want := planObjects(t, whole)
	if len(want) != 675 {
		t.Errorf("upstream's example has %d objects, want 675", len(want))
	}
	parts, found := plan(upstreamStack(t, examplePaths(t)...))
	got := planObjects(t, parts)
	// The one thing that is lost: in the whole, the variables of pvcviewer-controller also
	// replace those that JobSet's file was published with. JobSet makes its own certificate.
	const jobsets = "apiextensions.k8s.io/v1 CustomResourceDefinition <nil>/jobsets.jobset.x-k8s.io"
	annotations := func(o map[string]any) map[string]any {
		return o["metadata"].(map[string]any)["annotations"].(map[string]any)
	}
	if a := annotations(got[jobsets]); a["cert-manager.io/inject-ca-from"] == "$(CERTIFICATE_NAMESPACE)/$(CERTIFICATE_NAME)" {
		a["cert-manager.io/inject-ca-from"] = annotations(want[jobsets])["cert-manager.io/inject-ca-from"]
	}
	for id, o := range want {
		if !reflect.DeepEqual(got[id], o) {
			t.Errorf("%s differs, or is missing", id)
		}
		delete(got, id)
	}
	for id := range got {
		t.Errorf("%s is not upstream's", id)
	}
	kept, _ := filepath.Glob(filepath.Join(cached, "*.json"))
	if len(kept) != 28 {
		t.Errorf("%d files in the cache, want one for each component", len(kept))
	}
	if again, _ := plan(upstreamStack(t, examplePaths(t)...)); !bytes.Equal(encode(t, again), encode(t, parts)) {
		t.Error("what comes from the cache is not what was rendered")
	}
	checkImages(t, found)
}

func checkImages(t *testing.T, found *manifest.Findings) {
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
