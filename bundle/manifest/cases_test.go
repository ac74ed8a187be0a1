package manifest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"atoll/bundle/manifest"
)

// These are cases of public bug reports about other tools, each with its whole kind.

// tree writes files to a folder. With a kustomization, it names all of them.
func tree(t *testing.T, files map[string]string, kustomized bool) string {
	t.Helper()
	dir := t.TempDir()
	kustomization := "resources:\n"
	for name, text := range files {
		kustomization += "- " + name + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if kustomized {
		if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// search gives each place of an image below a folder, a line each, with the folder as DIR.
func search(t *testing.T, dir string) []string {
	t.Helper()
	objs, err := manifest.Read(t.Context(), dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	found, err := manifest.Images(objs)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, im := range found.Images {
		if strings.Contains(im.Reference, "\r") {
			t.Errorf("%q has a carriage return", im.Reference)
		}
		for _, w := range im.Where {
			lines = append(lines, fmt.Sprintf("%s %s %s", im.Reference, im.Tier, strings.Replace(w.String(), dir, "DIR", 1)))
		}
	}
	for _, d := range found.Doubts {
		lines = append(lines, "doubt "+d.String())
	}
	return lines
}

// references gives the first words of lines, without the registry.
func references(lines []string) string {
	var refs []string
	for _, l := range lines {
		ref, _, _ := strings.Cut(l, " ")
		refs = append(refs, strings.TrimPrefix(ref, "lab.test/"))
	}
	return strings.Join(slices.Compact(refs), " ")
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const listsYAML = `apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: DeploymentList
  items:
  - metadata: {name: no-kind-inside-a-typed-list}
    spec: {template: {spec: {initContainers: [{name: i, image: "lab.test/l/init:1"}], containers: [{name: c, image: "lab.test/l/main:1"}]}}}
- apiVersion: v1
  kind: List
  items:
  - apiVersion: batch/v1
    kind: CronJob
    metadata: {name: deep}
    spec: {schedule: "0 0 * * *", jobTemplate: {spec: {template: {spec: {ephemeralContainers: [{name: e, image: "lab.test/l/eph:1"}], containers: [{name: c, image: "lab.test/l/cron:1"}], volumes: [{name: v, image: {reference: "lab.test/l/vol:1"}}]}}}}}
- apiVersion: v1
  kind: List
  items: []
`

const listsJSON = `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"j"},"spec":{"containers":[{"name":"c","image":"lab.test/l/json:1"}]}}]}
`

// TestLists is zarf-dev/zarf#5375: lists in lists, typed ones, and JSON. A rendered
// kustomization has no lists and no files any more, so places are told without them.
func TestLists(t *testing.T) {
	files := map[string]string{"a.yaml": listsYAML, "b.json": listsJSON}
	same(t, search(t, tree(t, files, false)), []string{
		"lab.test/l/cron:1 required a.yaml: CronJob deep items[1].items[0].spec.jobTemplate.spec.template.spec.containers[0].image",
		"lab.test/l/eph:1 required a.yaml: CronJob deep items[1].items[0].spec.jobTemplate.spec.template.spec.ephemeralContainers[0].image",
		"lab.test/l/init:1 required a.yaml: Deployment no-kind-inside-a-typed-list items[0].items[0].spec.template.spec.initContainers[0].image",
		"lab.test/l/json:1 required b.json: Pod j items[0].spec.containers[0].image",
		"lab.test/l/main:1 required a.yaml: Deployment no-kind-inside-a-typed-list items[0].items[0].spec.template.spec.containers[0].image",
		"lab.test/l/vol:1 required a.yaml: CronJob deep items[1].items[0].spec.jobTemplate.spec.template.spec.volumes[0].image.reference",
	})
	same(t, search(t, tree(t, files, true)), []string{
		"lab.test/l/cron:1 required DIR: CronJob deep spec.jobTemplate.spec.template.spec.containers[0].image",
		"lab.test/l/eph:1 required DIR: CronJob deep spec.jobTemplate.spec.template.spec.ephemeralContainers[0].image",
		"lab.test/l/init:1 required DIR: Deployment no-kind-inside-a-typed-list spec.template.spec.initContainers[0].image",
		"lab.test/l/json:1 required DIR: Pod j spec.containers[0].image",
		"lab.test/l/main:1 required DIR: Deployment no-kind-inside-a-typed-list spec.template.spec.containers[0].image",
		"lab.test/l/vol:1 required DIR: CronJob deep spec.jobTemplate.spec.template.spec.volumes[0].image.reference",
	})
}

// TestTypedLists has a typed list of each kind that runs pods, its items without kind and
// apiVersion, with a kind alone, and with both; in YAML and in two ways to write JSON.
func TestTypedLists(t *testing.T) {
	const pod, template = `{"containers": [{"name": "c", "image": "lab.test/NAME:1"}]}`, `{"template": {"spec": POD}}`
	for _, tc := range []struct{ api, kind, body, path string }{
		{"v1", "Pod", `"spec": POD`, "spec."},
		{"v1", "PodTemplate", `"template": {"spec": POD}`, "template.spec."},
		{"v1", "ReplicationController", `"spec": ` + template, "spec.template.spec."},
		{"apps/v1", "ReplicaSet", `"spec": ` + template, "spec.template.spec."},
		{"apps/v1", "Deployment", `"spec": ` + template, "spec.template.spec."},
		{"apps/v1", "StatefulSet", `"spec": ` + template, "spec.template.spec."},
		{"apps/v1", "DaemonSet", `"spec": ` + template, "spec.template.spec."},
		{"batch/v1", "Job", `"spec": ` + template, "spec.template.spec."},
		{"batch/v1", "CronJob", `"spec": {"jobTemplate": {"spec": ` + template + `}}`, "spec.jobTemplate.spec.template.spec."},
	} {
		item := func(head, name string) string {
			body := strings.ReplaceAll(strings.ReplaceAll(tc.body, "POD", pod), "NAME", name)
			return fmt.Sprintf(`{%s"metadata": {"name": %q}, %s}`, head, name, body)
		}
		kind, api := fmt.Sprintf(`"kind": %q, `, tc.kind), fmt.Sprintf(`"apiVersion": %q, `, tc.api)
		items := "[" + item("", "none") + ", " + item(kind, "kind") + ", " + item(kind+api, "both") + "]"
		for name, text := range map[string]string{
			"l.yaml": fmt.Sprintf("apiVersion: %s\nkind: %sList\nmetadata: {resourceVersion: \"1\"}\nitems: %s\n", tc.api, tc.kind, items),
			"m.yaml": fmt.Sprintf("apiVersion: v1\nkind: List\nitems:\n- kind: '%sList'\n  apiVersion: %s\n  items: %s\n", tc.kind, tc.api, items),
			"l.json": fmt.Sprintf(`{"items": %s, "kind" : "%sList", "apiVersion" : %q}`, items, tc.kind, tc.api),
		} {
			t.Run(tc.kind+"/"+name, func(t *testing.T) {
				for kustomized, list := range map[bool]string{false: "items[%d].", true: ""} {
					source := "DIR"
					if !kustomized {
						source = name
						if name == "m.yaml" {
							list = "items[0]." + list
						}
					}
					var want []string
					for i, n := range []string{"none", "kind", "both"} {
						at := strings.ReplaceAll(list, "%d", fmt.Sprint(i))
						want = append(want, fmt.Sprintf("lab.test/%s:1 required %s: %s %s %s%scontainers[0].image", n, source, tc.kind, n, at, tc.path))
					}
					slices.Sort(want)
					same(t, search(t, tree(t, map[string]string{name: text}, kustomized)), want)
				}
			})
		}
	}
}

// TestOddLists has lists that are empty or broken, and what only looks like a list.
func TestOddLists(t *testing.T) {
	const pod = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: 'lab.test/p:1'}]}}"
	for _, tc := range []struct{ name, text, want, refused string }{
		{"empty", "apiVersion: v1\nkind: List\nitems: []\n---\n" + pod, "p:1", ""},
		{"null", "apiVersion: v1\nkind: List\nitems:\n---\n" + pod, "p:1", ""},
		{"null, typed", "apiVersion: v1\nkind: PodList\nitems: null\n---\n" + pod, "p:1", ""},
		{"null in lists", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: ~}, " + pod + "]\n", "p:1", ""},
		{"no list, though called so", "apiVersion: x.test/v1\nkind: AllowList\nmetadata: {name: l}\nspec: {image: 'lab.test/p:1'}\n", "p:1", ""},
		{"null item", "apiVersion: v1\nkind: List\nitems: [~, " + pod + "]\n", "p:1", ""},
		{"null item, typed", "apiVersion: v1\nkind: PodList\nitems: [~, {metadata: {name: p}, spec: {containers: [{name: c, image: 'lab.test/p:1'}]}}]\n", "p:1", ""},
		{"item that is a string", "apiVersion: v1\nkind: PodList\nitems: [" + pod + ", x]\n", "", "items[1] of a PodList is no object"},
		{"item without kind", "apiVersion: v1\nkind: List\nitems: [{metadata: {name: p}}]\n", "", "it has no kind"},
		{"list in a string", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  pods.yaml: |\n    apiVersion: v1\n    kind: PodList\n    items:\n    - " +
			"spec: {containers: [{name: c, image: 'lab.test/p:1'}], initContainers: [{name: i, image: 'lab.test/q:1'}]}\n", "p:1 q:1", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.refused == "" {
				objs, err := manifest.Parse("f.yaml", []byte(tc.text))
				if err != nil || len(objs) != 1 {
					t.Errorf("got %v, %v, want one object: an empty list is none", objs, err)
				}
				for _, kustomized := range []bool{false, true} {
					if got := references(search(t, tree(t, map[string]string{"f.yaml": tc.text}, kustomized))); got != tc.want {
						t.Errorf("kustomized %v: got %q, want %q", kustomized, got, tc.want)
					}
				}
				return
			}
			if _, err := manifest.Parse("f.yaml", []byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.refused) || !strings.Contains(err.Error(), "f.yaml") {
				t.Errorf("got %v, want an error with f.yaml and %q", err, tc.refused)
			}
			if _, err := manifest.Read(t.Context(), tree(t, map[string]string{"f.yaml": tc.text}, true), nil, nil); err == nil {
				t.Error("as a kustomization: no error")
			}
		})
	}
}

// TestListsAreApplied holds what a node is given: the items, no list, and in an order that
// can be applied.
func TestListsAreApplied(t *testing.T) {
	kinds := func(objs []manifest.Object) string {
		var out []string
		for _, o := range objs {
			out = append(out, fmt.Sprint(o.Value["apiVersion"], "/", o.Value["kind"]))
		}
		return strings.Join(out, " ")
	}
	const text = `apiVersion: v1
kind: List
items:
- {apiVersion: apps/v1, kind: DeploymentList, items: [{metadata: {name: d, namespace: n}}]}
- {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: n}}, {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: n}}]}]}
`
	objs, err := manifest.Parse("f.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := kinds(objs); got != "apps/v1/Deployment v1/ConfigMap v1/Namespace" {
		t.Errorf("items are not in their order: %s", got)
	}
	objs, err = manifest.Render(fstest.MapFS{
		"k/kustomization.yaml": {Data: []byte("resources: [f.yaml]\n")}, "k/f.yaml": {Data: []byte(text)},
	}, "k")
	if err != nil {
		t.Fatal(err)
	}
	if got := kinds(objs); got != "v1/Namespace v1/ConfigMap apps/v1/Deployment" {
		t.Errorf("a node cannot apply this order: %s", got)
	}
}
