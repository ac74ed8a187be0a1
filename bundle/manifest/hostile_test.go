package manifest_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"atoll/bundle/manifest"
)

// bomb is YAML that holds 10^levels strings when its aliases are expanded.
func bomb(levels int) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\na0: &a0 [x]\n")
	for i := 1; i <= levels; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	return b.String()
}

func TestHostileInput(t *testing.T) {
	deep := func(n int) string {
		return "kind: X\nv: " + strings.Repeat("[", n) + strings.Repeat("]", n) + "\n"
	}
	for _, tc := range []struct{ name, yaml, want string }{
		{"alias bomb", bomb(9), "too large or too deep"},
		{"alias in a cycle", "kind: X\na: &a [*a]\n", "too large or too deep"},
		{"merge bomb", "kind: X\n" + strings.TrimPrefix(bomb(9), "apiVersion: v1\nkind: ConfigMap\n"), "too large"},
		{"deep", deep(1000), "more than 400 levels"},
		{"deeper than the parser goes", deep(100_000), "depth"},
		{"100 MB", "kind: X\nv: " + strings.Repeat("a", 100<<20), "more than 16777216 bytes"},
		{"no object", "- a\n", "cannot unmarshal"},
		{"no kind", "a: b\n", "has no kind"},
		{"item that is none", "kind: List\nitems: [1]\n", "items[0]"},
		{"a long key over many items", "kind: X\n? " + strings.Repeat("k", 1<<20) + "\n:\n" + strings.Repeat("- {a: b/c:1}\n", 3000), "more than 1024 bytes in a key"},
		{"many keys", "kind: X\nv:\n" + keys(80_000), "more than 4096 keys in a mapping"},
		{"many keys in a string", "kind: X\nv:\n- image: a/b:1\n- " + strings.Repeat("[", 300) + strings.Repeat("]", 300) + "\n- |\n" + keys(80_000), ""},
		{"a long way", "kind: X\nv: " + strings.Repeat("{"+strings.Repeat("k", 1000)+": ", 5) + strings.Repeat("}", 5) + "\n", "more than 4096 bytes in the path"},
		{"many places", "kind: X\nv:\n" + strings.Repeat("- a/b:1\n", 20_002), "more than 20000 places"},
		{"many places in pods", "kind: X\ncontainers:\n" + strings.Repeat("- {image: '{}'}\n", 20_001) + "v: x\n", "more than 20000 places"},
		{"strings in strings", "kind: X\nv: " + fmt.Sprintf("%q", nest(6)) + "\n", "nested more than 4 times"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			objs, err := manifest.Parse("f.yaml", []byte(tc.yaml))
			if err == nil {
				_, err = manifest.Images(objs)
			}
			if tc.want == "" && err == nil {
				return
			}
			if err == nil || tc.want == "" || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "f.yaml") {
				t.Fatalf("got %v, want an error with f.yaml and %q", err, tc.want)
			}
		})
	}
}

// keys is a mapping of n keys, set in.
func keys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  k%d: x\n", i)
	}
	return b.String()
}

// TestManyObjects has as many objects as a rule looks for another one, which each of them
// could be.
func TestManyObjects(t *testing.T) {
	var objs []manifest.Object
	for i := range 20_000 {
		objs = append(objs, manifest.Object{Source: "x", Value: map[string]any{"kind": "ConfigMap", "apiVersion": "v1", "metadata": map[string]any{"name": fmt.Sprintf("kubeflow-pipelines-profile-controller-code%d", i)},
			"data": map[string]any{"sync.py": `"FRONTEND_IMAGE", "a/b"`}}})
	}
	if _, err := manifest.Images(objs); err != nil {
		t.Error(err)
	}
}

// nest gives YAML in a string in YAML …
func nest(n int) string {
	if n == 0 {
		return "x"
	}
	return fmt.Sprintf("{v: %q}", nest(n-1))
}

// TestBombInString makes sure that a bomb inside of a string is not expanded either.
func TestBombInString(t *testing.T) {
	objs := []manifest.Object{{Source: "x", Value: map[string]any{"kind": "X", "v": bomb(9) + "i: a/b:1\n"}}}
	found, err := manifest.Images(objs)
	if err != nil || len(found.Images) != 1 {
		t.Errorf("got %v, %v; want the one image, found in the text", found, err)
	}
}

func TestRenderRefuses(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	kust := func(s string) fstest.MapFS {
		return fstest.MapFS{"app/kustomization.yaml": file(s), "app/x.yaml": file("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")}
	}
	for _, tc := range []struct {
		name string
		fsys fstest.MapFS
		want []string
	}{
		{"https file", kust("resources: [https://host.example/x.yaml]\n"), []string{"app/kustomization.yaml", "https://host.example/x.yaml", "fetches nothing"}},
		{"git", kust("resources: ['https://github.com/o/r//p?ref=v1']\n"), []string{"app/kustomization.yaml", "github.com/o/r//p?ref=v1"}},
		{"bare github", kust("resources: [github.com/o/r]\n"), []string{"app/kustomization.yaml", `"github.com/o/r" is remote`}},
		{"scp", kust("resources: ['git@host.example:o/r.git']\n"), []string{"git@host.example:o/r.git"}},
		{"forced git", kust("bases: ['git::https://h.example/r']\n"), []string{"git::https"}},
		{"component", kust("components: ['https://h.example/c']\n"), []string{"https://h.example/c"}},
		{"patch", kust("resources: [x.yaml]\npatches: [{path: 'http://h.example/p.yaml'}]\n"), []string{"http://h.example/p.yaml"}},
		{"openapi", kust("resources: [x.yaml]\nopenapi: {path: 'http://h.example/s.json'}\n"), []string{"http://h.example/s.json"}},
		{"config map", kust("configMapGenerator: [{name: c, files: ['k=https://h.example/f']}]\n"), []string{"https://h.example/f"}},
		{"env file", kust("secretGenerator: [{name: c, envs: ['https://h.example/f?a=b']}]\n"), []string{"https://h.example/f?a=b"}},
		{"helm", kust("helmCharts: [{name: c, repo: 'https://h.example'}]\n"), []string{"helm"}},
		{"missing", kust("resources: [y.yaml]\n"), []string{"app/kustomization.yaml", `"y.yaml" is not in the tree`}},
		{"outside", kust("resources: [../../../etc/passwd]\n"), []string{"not in the tree"}},
		{"in a base", fstest.MapFS{
			"app/kustomization.yaml":  file("resources: [../base]\n"),
			"base/kustomization.yaml": file("resources: [https://h.example/x]\n"),
		}, []string{"base/kustomization.yaml", "https://h.example/x"}},
		{"in a generator", fstest.MapFS{
			"app/kustomization.yaml": file("generators: [g.yaml]\n"),
			"app/g.yaml":             file("apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: g}\nfiles: ['https://h.example/x']\n"),
		}, []string{"app/g.yaml", "https://h.example/x"}},
		{"in an inline generator", kust("generators:\n- |\n  apiVersion: builtin\n  kind: ConfigMapGenerator\n  metadata: {name: g}\n  files: ['https://h.example/x']\n"), []string{"https://h.example/x", "is remote"}},
		{"cycle", fstest.MapFS{
			"app/kustomization.yaml": file("resources: [../b]\n"), "b/kustomization.yaml": file("resources: [../app]\n"),
		}, []string{"cycle"}},
		{"alias bomb", fstest.MapFS{"app/kustomization.yaml": file("resources: [b.yaml]\n"), "app/b.yaml": file(bomb(9))}, []string{"app/b.yaml", "too large"}},
		{"100 MB", fstest.MapFS{"app/kustomization.yaml": file("resources: []\n"), "app/big": {Data: bytes.Repeat([]byte("x"), 100<<20)}}, []string{"app/big", "16 MiB"}},
		{"no such folder", kust("resources: [x.yaml]\n"), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := "app"
			if tc.want == nil {
				dir, tc.want = "nowhere", []string{"nowhere"}
			}
			_, err := manifest.Render(tc.fsys, dir)
			for _, part := range tc.want {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("got %v, want an error with %q", err, part)
				}
			}
		})
	}
}
