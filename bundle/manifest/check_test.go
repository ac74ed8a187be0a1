package manifest_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	//lint:ignore SA1019 kustomize has these types nowhere else
	"sigs.k8s.io/kustomize/api/builtins"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"atoll/bundle/manifest"
)

// world is what a kustomization must not reach: a git that leaves a mark, and a server.
type world struct {
	t     *testing.T
	marks string
	url   string
	dials atomic.Int32
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, marks: t.TempDir()}
	bin := t.TempDir()
	for _, name := range []string{"git", "helm", "docker"} {
		script := fmt.Sprintf("#!/bin/sh\n: >%s/%s\nexit 1\n", w.marks, name)
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w.url = "http://" + l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.dials.Add(1)
			c.Close()
		}
	}()
	return w
}

// touched says what was reached.
func (w *world) touched() (git, server bool) {
	entries, err := os.ReadDir(w.marks)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(entries) > 0, w.dials.Load() > 0
}

const object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"

// remotes are kustomizations in the folder app that name what is remote, URL. Some decoders
// take a key for another that is written otherwise.
func remotes(url string) map[string]map[string]string {
	one := func(text string) map[string]string { return map[string]string{"app/kustomization.yaml": text} }
	plugin := func(text string) map[string]string {
		return map[string]string{"app/kustomization.yaml": "resources: [x.yaml]\ntransformers: [p.yaml]\n", "app/p.yaml": text}
	}
	with := func(files map[string]string, more ...string) map[string]string {
		for i := 0; i < len(more); i += 2 {
			files[more[i]] = more[i+1]
		}
		return files
	}
	cases := map[string]map[string]string{
		"case of a key":           one("Resources: ['URL']\n"),
		"an option of git":        one(`Resources: ["file:///nowhere?ref=--upload-pack%3Dtouch%20MARKER%3B"]` + "\n"),
		"the same twice":          one("RESOURCES: [x.yaml]\nresources: ['URL']\n"),
		"end of line in it":       one("resources: [\"https://host.example/o/r\\n\"]\n"),
		"case of a scheme":        one("resources: ['HTTPS://host.example/o/r']\n"),
		"ssh":                     one("resources: ['ssh://git@host.example/o/r']\n"),
		"PATCHES":                 one("resources: [x.yaml]\nPATCHES: [{path: 'URL'}]\n"),
		"patches":                 one("resources: [x.yaml]\npatches: [{Path: 'URL'}]\n"),
		"patchesJson6902":         one("resources: [x.yaml]\npatchesjson6902: [{PATH: 'URL', target: {kind: ConfigMap, name: x, version: v1}}]\n"),
		"patchesStrategicMerge":   one("resources: [x.yaml]\npatchesStrategicMerge: ['URL']\n"),
		"configMapGenerator":      one("configmapgenerator: [{name: c, FILES: ['k=URL']}]\n"),
		"secretGenerator":         one("SecretGenerator: [{name: c, Env: 'URL'}]\n"),
		"replacements":            one("resources: [x.yaml]\nreplacements: [{PATH: 'URL'}]\n"),
		"openapi":                 one("resources: [x.yaml]\nopenAPI: {path: 'URL'}\n"),
		"crds":                    one("resources: [x.yaml]\nCRDs: ['URL']\n"),
		"configurations":          one("resources: [x.yaml]\nConfigurations: ['URL']\n"),
		"bases":                   one("Bases: ['URL']\n"),
		"components":              one("Components: ['URL']\n"),
		"generators":              one("Generators: ['URL']\n"),
		"validators":              one("resources: [x.yaml]\nValidators: ['URL']\n"),
		"alias":                   one("namePrefix: &a 'URL'\nresources: [*a]\n"),
		"patch of a plugin":       plugin("apiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: p}\nPATH: 'URL'\n"),
		"json patch of a plugin":  plugin("apiVersion: builtin\nkind: PatchJson6902Transformer\nmetadata: {name: p}\nPath: 'URL'\ntarget: {name: x, kind: ConfigMap, version: v1}\n"),
		"patches of a plugin":     plugin("apiVersion: builtin\nkind: PatchStrategicMergeTransformer\nmetadata: {name: p}\nPaths: ['URL']\n"),
		"replacement of a plugin": plugin("apiVersion: builtin\nkind: ReplacementTransformer\nmetadata: {name: p}\nReplacements: [{PATH: 'URL'}]\n"),
		"values of a plugin":      plugin("apiVersion: builtin\nkind: ValueAddTransformer\nmetadata: {name: p}\nvalue: v\ntargetfilepath: 'URL'\n"),
		"in a folder of plugins": with(one("resources: [x.yaml]\ntransformers: [t]\n"), "app/t/kustomization.yaml", "resources: [p.yaml]\n",
			"app/t/p.yaml", "apiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: p}\npath: 'URL'\n"),
		"in folders of plugins": with(one("generators: [t]\n"), "app/t/kustomization.yaml", "Resources: [u]\n", "app/t/u/kustomization.yaml", "resources: [p.yaml]\n",
			"app/t/u/p.yaml", "apiVersion: v1\nkind: List\nitems: [{apiVersion: builtin, kind: ConfigMapGenerator, metadata: {name: p}, Files: ['URL']}]\n"),
		"in a base": with(one("resources: [../base]\n"), "base/Kustomization", "RESOURCES: ['URL']\n"),
	}
	for _, files := range cases {
		files["app/x.yaml"] = object
		for name, text := range files {
			files[name] = strings.ReplaceAll(text, "URL", url)
		}
	}
	return cases
}

func fsOf(files map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

// TestRemote wants every name of what is remote to be told by the checker.
func TestRemote(t *testing.T) {
	w := newWorld(t)
	for _, url := range []string{w.url + "/o/r", "https://host.example/o/r?ref=v1", "git@host.example:o/r", "github.com/o/r"} {
		for name, files := range remotes(url) {
			_, err := manifest.Render(fsOf(files), "app")
			var remote *manifest.RemoteError
			if !errors.As(err, &remote) {
				t.Errorf("%s, %s: got %v, want a RemoteError", name, url, err)
			}
		}
	}
	if git, server := w.touched(); git || server {
		t.Errorf("git ran: %v, server was dialled: %v", git, server)
	}
}

// TestGuard gives kustomize what no check has seen: it must reach nothing. Without the
// guard it does, so that is tested.
func TestGuard(t *testing.T) {
	for _, guard := range []bool{false, true} {
		w := newWorld(t)
		path := os.Getenv("PATH")
		for name, files := range remotes(w.url + "/o/r") {
			fsys := filesys.MakeFsInMemory()
			for file, text := range files {
				if err := fsys.WriteFile("/"+file, []byte(text)); err != nil {
					t.Fatal(err)
				}
			}
			if err := manifest.Unchecked(t.Context(), fsys, "/app", guard); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if git, server := w.touched(); git == guard || server == guard {
			t.Errorf("guarded %v: git ran: %v, server was dialled: %v", guard, git, server)
		}
		if got := os.Getenv("PATH"); got != path {
			t.Errorf("PATH is %q", got)
		}
	}
}

// TestPluginsRefused has plugins that run something.
func TestPluginsRefused(t *testing.T) {
	w := newWorld(t)
	for name, config := range map[string]string{
		"helm":           "apiVersion: builtin\nkind: HelmChartInflationGenerator\nmetadata: {name: p}\nname: c\n",
		"exec":           "apiVersion: example.test/v1\nkind: Runs\nmetadata:\n  name: p\n  annotations: {config.kubernetes.io/function: 'exec: {path: ./git}'}\n",
		"container":      "apiVersion: example.test/v1\nkind: Runs\nmetadata:\n  name: p\n  annotations: {config.kubernetes.io/function: 'container: {image: x}'}\n",
		"exec, built in": "apiVersion: builtin\nkind: Runs\nmetadata: {name: p}\n",
		"starlark":       "apiVersion: example.test/v1\nkind: Runs\nmetadata:\n  name: p\n  annotations: {config.kubernetes.io/function: 'starlark: {path: x.star}'}\n",
	} {
		for _, field := range []string{"generators", "transformers", "validators"} {
			for at, files := range map[string]map[string]string{
				"file":   {"app/kustomization.yaml": "resources: [x.yaml]\n" + field + ": [p.yaml]\n", "app/p.yaml": config, "app/x.yaml": object},
				"text":   {"app/kustomization.yaml": "resources: [x.yaml]\n" + field + ":\n- |\n  " + strings.ReplaceAll(config, "\n", "\n  ") + "\n", "app/x.yaml": object},
				"folder": {"app/kustomization.yaml": "resources: [x.yaml]\n" + field + ": [t]\n", "app/t/kustomization.yaml": "resources: [p.yaml]\n", "app/t/p.yaml": config, "app/x.yaml": object},
			} {
				if _, err := manifest.Render(fsOf(files), "app"); err == nil || !strings.Contains(err.Error(), "plugin") {
					t.Errorf("%s, %s in a %s: got %v, want it refused", name, field, at, err)
				}
			}
		}
	}
	for _, text := range []string{"HelmCharts: [{name: c}]\n", "helmchartinflationgenerator: [{chartName: c, chartHome: d}]\n", "HELMGLOBALS: {chartHome: d}\n"} {
		if _, err := manifest.Render(fsOf(map[string]string{"app/kustomization.yaml": text}), "app"); err == nil || !strings.Contains(err.Error(), "helm charts are not rendered") {
			t.Errorf("%s: got %v, want it refused", text, err)
		}
	}
	if git, server := w.touched(); git || server {
		t.Errorf("git ran: %v, server was dialled: %v", git, server)
	}
}

// TestPlugins wants plugins that are built in to work, in whatever way they are configured,
// with paths that start at the kustomization that uses them.
func TestPlugins(t *testing.T) {
	const patch = "apiVersion: builtin\nkind: PatchTransformer\nmetadata:\n  name: p\n  annotations: {config.kubernetes.io/local-config: 'true'}\npath: patch.yaml\n"
	const labels = "apiVersion: builtin\nkind: LabelTransformer\nmetadata: {name: l}\nlabels: {l: v}\nfieldSpecs: [{path: metadata/labels, create: true}]\n"
	const generator = "apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: g}\nname: g\nfiles: [kustomization.yaml, l.yaml]\nenvs: [e.env]\noptions: {disableNameSuffixHash: true}\n"
	common := map[string]string{"app/x.yaml": object, "app/patch.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, annotations: {a: v}}\n",
		"app/l.yaml": "kind: PodList\nitems: []\n...\n", "app/e.env": "K=v\n"}
	inline := func(s string) string { return "- |\n  " + strings.ReplaceAll(s, "\n", "\n  ") + "\n" }
	for name, files := range map[string]map[string]string{
		"files":  {"app/kustomization.yaml": "resources: [x.yaml]\ngenerators: [g.yaml]\ntransformers: [p.yaml, l2.yaml]\n", "app/g.yaml": generator, "app/p.yaml": patch, "app/l2.yaml": labels},
		"texts":  {"app/kustomization.yaml": "resources: [x.yaml]\ngenerators:\n" + inline(generator) + "transformers:\n" + inline(patch) + inline(labels)},
		"stream": {"app/kustomization.yaml": "resources: [x.yaml]\ngenerators: [g.yaml]\ntransformers: [p.yaml]\n", "app/g.yaml": generator, "app/p.yaml": patch + "---\n" + labels},
		"folder": {"app/kustomization.yaml": "resources: [x.yaml]\ngenerators: [../t/g]\ntransformers: [../t/p]\n", "t/g/kustomization.yaml": "resources: [g.yaml]\n", "t/g/g.yaml": generator,
			"t/p/kustomization.yaml": "resources: [p.yaml, ../q]\n", "t/p/p.yaml": patch, "t/q/kustomization.yaml": "resources: [l.yaml]\n", "t/q/l.yaml": labels},
	} {
		t.Run(name, func(t *testing.T) {
			for file, text := range common {
				files[file] = text
			}
			objs, err := manifest.Render(fsOf(files), "app")
			if err != nil || len(objs) != 2 {
				t.Fatalf("got %v, %v, want two objects", objs, err)
			}
			for _, o := range objs {
				meta := o.Value["metadata"].(map[string]any)
				if l, _ := meta["labels"].(map[string]any); l["l"] != "v" {
					t.Errorf("%v has no label", meta)
				}
				if meta["name"] == "x" {
					if a, _ := meta["annotations"].(map[string]any); a["a"] != "v" {
						t.Errorf("%v is not patched", meta)
					}
					continue
				}
				want := map[string]any{"K": "v", "l.yaml": common["app/l.yaml"], "kustomization.yaml": files["app/kustomization.yaml"]}
				if !reflect.DeepEqual(o.Value["data"], want) {
					t.Errorf("a file became another text: %v", o.Value["data"])
				}
			}
		})
	}
	_, err := manifest.Render(fsOf(map[string]string{"app/kustomization.yaml": "generators: [t]\n", "app/t/kustomization.yaml": "namePrefix: a\nresources: [g.yaml]\n", "app/t/g.yaml": generator}), "app")
	if err == nil || !strings.Contains(err.Error(), "may list resources, and do nothing else") {
		t.Errorf("a folder that does more: got %v", err)
	}
	_, err = manifest.Render(fsOf(map[string]string{"app/kustomization.yaml": "generators: [../t]\n", "t/kustomization.yaml": "resources: [../u]\n", "u/kustomization.yaml": "resources: [../t]\n"}), "app")
	if err == nil || !strings.Contains(err.Error(), "include each other") {
		t.Errorf("folders in a cycle: got %v", err)
	}
}

// TestPanics has input that kustomize panics on.
func TestPanics(t *testing.T) {
	for name, text := range map[string]string{
		"schema":    "resources: [x.yaml]\nopenapi: {path: schema.json}\n",
		"no target": "resources: [x.yaml]\npatchesJson6902: [{patch: '[]'}]\n",
	} {
		_, err := manifest.Render(fsOf(map[string]string{"app/kustomization.yaml": text, "app/schema.json": "{", "app/x.yaml": "apiVersion: a.test/v1\nkind: X\nmetadata: {name: x}\n---\n" + object}), "app")
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := manifest.Render(fsOf(map[string]string{"app/kustomization.yaml": "resources: [x.yaml]\n", "app/x.yaml": object}), "app"); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
}

// texts are all fields of kustomize's types that may hold a text, but for those of
// objects' labels and the like.
func texts(t reflect.Type, at string, seen []reflect.Type, add func(string)) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		texts(t.Elem(), at, seen, add)
	case reflect.Map:
		texts(t.Elem(), at+".*", seen, add)
	case reflect.String:
		add(at)
	case reflect.Struct:
		if slices.Contains(seen, t) {
			return
		}
		for i := range t.NumField() {
			f := t.Field(i)
			if f.PkgPath != "" && !f.Anonymous {
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" && f.Anonymous {
				texts(f.Type, at, append(seen, t), add)
				continue
			}
			texts(f.Type, strings.TrimPrefix(at+"."+name, "."), append(seen, t), add)
		}
	}
}

// TestFields holds the fields that kustomize reads paths from against what the checker
// knows, so that a new version brings none unseen.
func TestFields(t *testing.T) {
	var fields []string
	add := func(at string) { fields = append(fields, at) }
	texts(reflect.TypeFor[types.Kustomization](), "", nil, add)
	for name, p := range map[string]any{
		"ConfigMapGenerator": builtins.ConfigMapGeneratorPlugin{}, "SecretGenerator": builtins.SecretGeneratorPlugin{}, "PatchTransformer": builtins.PatchTransformerPlugin{},
		"PatchJson6902Transformer": builtins.PatchJson6902TransformerPlugin{}, "PatchStrategicMergeTransformer": builtins.PatchStrategicMergeTransformerPlugin{},
		"ReplacementTransformer": builtins.ReplacementTransformerPlugin{}, "ValueAddTransformer": builtins.ValueAddTransformerPlugin{},
		"AnnotationsTransformer": builtins.AnnotationsTransformerPlugin{}, "HashTransformer": builtins.HashTransformerPlugin{}, "IAMPolicyGenerator": builtins.IAMPolicyGeneratorPlugin{},
		"ImageTagTransformer": builtins.ImageTagTransformerPlugin{}, "LabelTransformer": builtins.LabelTransformerPlugin{}, "NamespaceTransformer": builtins.NamespaceTransformerPlugin{},
		"PrefixTransformer": builtins.PrefixTransformerPlugin{}, "ReplicaCountTransformer": builtins.ReplicaCountTransformerPlugin{}, "SuffixTransformer": builtins.SuffixTransformerPlugin{},
	} {
		texts(reflect.TypeOf(p), name, nil, add)
	}
	slices.Sort(fields)
	got := strings.Join(slices.Compact(fields), "\n") + "\n"
	want, err := os.ReadFile("testdata/fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile("testdata/fields.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got != string(want) {
		t.Errorf("kustomize's fields are other ones: see to it that the checker knows every path among them, and run again with UPDATE=1\n%s", got)
	}
}
