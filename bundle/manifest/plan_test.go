package manifest_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	sigsyaml "sigs.k8s.io/yaml"

	"atoll/bundle"
	"atoll/bundle/manifest"
	"atoll/bundle/stack"
)

// TestPlanLab renders every stack twice and checks what the lab stack is for.
func TestPlanLab(t *testing.T) {
	s, err := stack.Load("lab")
	if err != nil {
		t.Fatal(err)
	}
	plan, found, err := manifest.Plan(t.Context(), manifest.Input{Stack: s, Definition: &bundle.Definition{}})
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := manifest.Plan(t.Context(), manifest.Input{Stack: s, Definition: &bundle.Definition{}})
	if err != nil {
		t.Fatal(err)
	}
	a, b := encode(t, plan), encode(t, again)
	if !bytes.Equal(a, b) {
		t.Error("two renders differ")
	}

	got := map[string]string{}
	images := found.Images
	if len(found.Doubts) > 0 {
		t.Errorf("doubts: %v", found.Doubts)
	}
	for _, im := range images {
		name, _, _ := strings.Cut(im.Reference, "@")
		got[name] = im.Tier
	}
	want := map[string]string{
		"docker.io/library/hello-lab:1.0": bundle.TierRuntime,
		"ghcr.io/atoll-lab/always:1.0":    bundle.TierRequired,
		"ghcr.io/atoll-lab/launcher:1.0":  bundle.TierRequired,
		"ghcr.io/atoll-lab/probe:1.0":     bundle.TierRequired,
		"ghcr.io/atoll-lab/probe:stable":  bundle.TierRequired,
		"ghcr.io/atoll-lab/webhook:1.0":   bundle.TierRequired,
		"quay.io/atoll-lab/pinned":        bundle.TierRequired,

		// Made on the node, or refused there.
		bundle.NodeRegistry + "/atoll-lab-push/probe:1": bundle.TierRequired,
		bundle.NodeRegistry + "/atoll-lab-push/host:1":  bundle.TierRuntime,
		bundle.NodeRegistry + "/atoll-lab/probe:1":      bundle.TierRuntime,
	}
	for name, tier := range want {
		if got[name] != tier {
			t.Errorf("image %s: tier %q, want %q", name, got[name], tier)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("image %s is not expected", name)
	}
	i := slices.IndexFunc(images, func(im manifest.Image) bool { return strings.Contains(im.Reference, "hello-lab") })
	if where := fmt.Sprint(images[i].Where); !strings.Contains(where, `launcher: ConfigMap atoll-lab/launcher-`) ||
		!strings.Contains(where, `data["runtime.yaml"] > job.image`) {
		t.Errorf("hello-lab was found at %s", where)
	}
}

// TestPlanReadBack makes sure that Kubernetes' own YAML reader, which knows another
// version of YAML, sees in a plan what was in the manifests.
func TestPlanReadBack(t *testing.T) {
	values := []string{"yes", "on", "0777", "1_000", "1:30", "0x1F", "1e3", "~", "", "null", "2020-01-01", " lead", "tab\there", "é\u2028x", "a: b", "#x", "'", `"`, "multi\nline\n", "trail\n\n", "- x", "1.0", "true"}
	var y strings.Builder
	y.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: odd}\ndata:\n")
	want := map[string]string{}
	for i, v := range values {
		key := string(rune('a' + i))
		quoted, err := sigsyaml.Marshal(map[string]string{key: v})
		if err != nil {
			t.Fatal(err)
		}
		y.WriteString("  " + strings.ReplaceAll(strings.TrimSuffix(string(quoted), "\n"), "\n", "\n  ") + "\n")
		want[key] = v
	}
	s := &stack.Stack{Name: "x", Phases: []stack.Phase{{Name: "p", Components: []string{"c"}, Timeout: 1}}, FS: fstest.MapFS{
		"c/kustomization.yaml": {Data: []byte("resources: [odd.yaml]\n")},
		"c/odd.yaml":           {Data: []byte(y.String())},
	}}
	plan, _, err := manifest.Plan(t.Context(), manifest.Input{Stack: s, Definition: &bundle.Definition{}})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Data map[string]string `json:"data"`
	}
	if err := sigsyaml.Unmarshal([]byte(plan.Phases[0].Manifest), &got); err != nil {
		t.Fatal(err)
	}
	for key, v := range want {
		if got.Data[key] != v {
			t.Errorf("value %q became %q", v, got.Data[key])
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	cm := func(name string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n")}
	}
	kust := &fstest.MapFile{Data: []byte("resources: [x.yaml]\n")}
	phase := func(c ...string) []stack.Phase {
		return []stack.Phase{{Name: "p", Components: c, Timeout: 1}}
	}
	for _, tc := range []struct {
		name string
		s    stack.Stack
		want string
	}{
		{"object twice", stack.Stack{Phases: phase("a", "b"), FS: fstest.MapFS{
			"a/kustomization.yaml": kust, "a/x.yaml": cm("same"), "b/kustomization.yaml": kust, "b/x.yaml": cm("same"),
		}}, "v1 ConfigMap same is in component a and again in b"},
		{"stale waiver", stack.Stack{Phases: phase("a"), Waivers: []stack.Waiver{{Image: "docker.io/a/b:c", Reason: "x"}}, FS: fstest.MapFS{
			"a/kustomization.yaml": kust, "a/x.yaml": cm("x"),
		}}, `"docker.io/a/b:c" is not in any manifest`},
		{"no kustomization", stack.Stack{Phases: phase("a"), FS: fstest.MapFS{"a/x.yaml": cm("x")}}, "a has no kustomization.yaml"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, _, err := manifest.Plan(t.Context(), manifest.Input{Stack: &tc.s, Definition: &bundle.Definition{}}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func encode(t *testing.T, p *bundle.Plan) []byte {
	t.Helper()
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}
