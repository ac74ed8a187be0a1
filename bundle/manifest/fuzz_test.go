package manifest_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"

	"sigs.k8s.io/kustomize/api/types"

	"atoll/bundle/manifest"
)

// pathFields are the fields of kustomize's types that have paths, by their JSON names.
var pathFields = []string{"resources", "bases", "components", "crds", "configurations", "generators", "transformers", "validators",
	"patchesStrategicMerge", "path", "files", "envs", "env"}

// pathsOf calls add for all that a decoded kustomization has paths in.
func pathsOf(v reflect.Value, field string, add func(field, name string)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			pathsOf(v.Elem(), field, add)
		}
	case reflect.Slice:
		for i := range v.Len() {
			pathsOf(v.Index(i), field, add)
		}
	case reflect.Map:
		if field == "openapi" && v.MapIndex(reflect.ValueOf("path")).IsValid() {
			add(field, v.MapIndex(reflect.ValueOf("path")).String())
		}
	case reflect.String:
		if slices.Contains(pathFields, field) && v.Len() > 0 {
			add(field, v.String())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			switch v.Type().Field(i).Name {
			case "Vars", "Targets", "Source", "FieldSpecs": // paths of fields, not of files
				continue
			}
			pathsOf(v.Field(i), name, add)
		}
	}
}

// FuzzCheck holds what the checker saw against what kustomize reads: as many paths as its
// own decoder finds, each so written that it is never remote; and kustomize never looks
// for git or asks for a URL.
func FuzzCheck(f *testing.F) {
	for _, files := range remotes("http://127.0.0.1:9/o/r") {
		f.Add(files["app/kustomization.yaml"], files["app/p.yaml"])
	}
	for _, text := range []string{
		"resources: [x.yaml, d]\nnamePrefix: a-\nimages: [{name: a, newTag: b}]\n",
		"resources: [x.yaml]\ntransformers: [p.yaml, d]\nconfigMapGenerator: [{name: c, files: [x.yaml, k=p.yaml], literals: [a=b]}]\n",
		"patchesStrategicMerge:\n- |\n  {apiVersion: v1, kind: ConfigMap, metadata: {name: x}}\n- x.yaml\nresources: [x.yaml]\n",
		"resources: [&a x.yaml]\n<<: {bases: [d]}\nCOMPONENTS: [d]\n", "\xff\xfer\x00", "{\"resources\":[\"x.yaml\"],\"Resources\":[\"./x.yaml\"]}",
		"generators: ['{apiVersion: builtin, kind: SecretGenerator, metadata: {name: s}, envs: [x.yaml]}']\n", "resources: ['..']\n", "resources: ['']\n",
		"kind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\nreplacements: [{path: p.yaml}]\nopenapi: {path: x.yaml}\n",
	} {
		f.Add(text, "apiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: p}\npath: x.yaml\n")
	}
	f.Fuzz(func(t *testing.T, text, plugin string) {
		fsys := fstest.MapFS{
			"app/kustomization.yaml": {Data: []byte(text)}, "app/p.yaml": {Data: []byte(plugin)}, "app/x.yaml": {Data: []byte(object)},
			"app/d/kustomization.yaml": {Data: []byte("resources: [y.yaml]\n")}, "app/d/y.yaml": {Data: []byte(strings.ReplaceAll(object, "name: x", "name: y"))},
		}
		checked, err := manifest.Check(t.Context(), fsys, "app")
		if err != nil {
			return
		}
		for _, tried := range []string{"'git'", "rendering fetches nothing", "HTTP"} {
			if checked.Err != nil && strings.Contains(checked.Err.Error(), tried) && !strings.Contains(text+plugin, tried) {
				t.Fatalf("kustomize reached out: %v", checked.Err)
			}
		}
		var raw types.Kustomization
		if raw.Unmarshal([]byte(text)) != nil {
			return // the checker changes line ends, and then reads it
		}
		raw.FixKustomization()
		before, after := map[string]int{}, map[string]int{}
		pathsOf(reflect.ValueOf(&raw), "", func(field, _ string) { before[field]++ })
		pathsOf(reflect.ValueOf(checked.Kustomization), "", func(field, name string) {
			after[field]++
			if field == "files" {
				_, name, _ = strings.Cut(name, "=")
			}
			if !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "---\n") && !strings.HasSuffix(name, "\n") {
				t.Errorf("%s: kustomize is given %q", field, name)
			}
		})
		if !reflect.DeepEqual(before, after) {
			t.Errorf("kustomize finds paths in %v, and is given them in %v", before, after)
		}
		again := *checked.Kustomization
		again.FixKustomization()
		if !reflect.DeepEqual(&again, checked.Kustomization) {
			t.Errorf("what was checked is not what is read")
		}
	})
}

// FuzzImages reads manifests and looks for images: it must end, and what it finds must be
// fit to print.
func FuzzImages(f *testing.F) {
	for _, text := range []string{separators, listsYAML, listsJSON, bomb(3), nest(3), object, "kind: Secret\napiVersion: v1\ndata: {a: eA==, b: '{'}\n",
		"kind: X\na.b: {'c d': [{image: a/b:1}, {containers: [{image: 'x y'}]}]}\n? [a]\n: b\n", "kind: ConfigMap\napiVersion: v1\nmetadata: {name: istio-sidecar-injector}\ndata: {values: '{global: {hub: a, tag: b, proxy: {image: c}}}'}\n",
		"kind: X\nv: \"- a\\n- {b: c/d:1}\"\n", "kind: CustomResourceDefinition\nspec: {default: {image: a/b:2}}\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objs, err := manifest.Parse("f.yaml", data)
		if err != nil {
			return
		}
		found, err := manifest.Images(objs)
		if err != nil {
			return
		}
		for _, im := range found.Images {
			if strings.ContainsFunc(im.Reference, unicode.IsControl) {
				t.Errorf("reference %q", im.Reference)
			}
		}
	})
}

// FuzzRender renders an object under a patch: kustomize may refuse it, and must not take
// the process down.
func FuzzRender(f *testing.F) {
	for _, text := range []string{object, separators, listsYAML, "a: &a [*a]\n", bomb(2), "[{op: add, path: /a, value: b}]", "kind: X\nmetadata: {name: x, annotations: {config.kubernetes.io/function: 'exec: {path: a}'}}\n"} {
		f.Add([]byte(text), []byte(object))
		f.Add([]byte(object), []byte(text))
	}
	f.Fuzz(func(t *testing.T, resource, patch []byte) {
		_, err := manifest.Render(fstest.MapFS{
			"app/kustomization.yaml": {Data: []byte("resources: [x.yaml]\npatches: [{path: p.yaml, target: {kind: ConfigMap}}]\n")},
			"app/x.yaml":             {Data: resource}, "app/p.yaml": {Data: patch},
		}, "app")
		var remote *manifest.RemoteError
		if errors.As(err, &remote) {
			t.Errorf("nothing here is remote: %v", err)
		}
	})
}
