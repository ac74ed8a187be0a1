package manifest_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"atoll/bundle/manifest"
)

const separators = `# only a comment before the first document
---
---   # separator with a comment
apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {containers: [{name: c, image: "lab.test/s/a:1"}]}
--- {apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {containers: [{name: c, image: "lab.test/s/b:1"}]}}
...
---
apiVersion: v1
kind: ConfigMap
metadata: {name: t}
data:
  inner.yaml: |
    kind: Pod
    spec: {containers: [{name: c, image: "lab.test/s/c:1"}]}
    ---
    kind: Pod
    spec: {containers: [{name: c, image: "lab.test/s/d:1"}]}
  cert.pem: |
    ---BEGIN---
    ---
---
apiVersion: v1
kind: Pod
metadata: {name: e}
spec: {containers: [{name: c, image: "lab.test/s/e:1"}]}`

// lineEnds are the ways to end a line, each as it makes them of "\n".
var lineEnds = map[string]func(string) string{
	"LF":   func(s string) string { return s },
	"CRLF": func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
	"CR":   func(s string) string { return strings.ReplaceAll(s, "\n", "\r") },
}

// TestSeparators is apache/camel-karavan#1259 and its like: all images of a file, whatever
// its line ends and separators are, and not one more.
func TestSeparators(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME}\nspec: {containers: [{name: c, image: lab.test/NAME}]}\n"
	a, b := strings.ReplaceAll(pod, "NAME", "a"), strings.ReplaceAll(pod, "NAME", "b")
	flow := func(s string) string { return strings.TrimSuffix(strings.ReplaceAll(s, "\n", ", "), ", ") }
	for name, tc := range map[string]struct{ text, want string }{
		"recipe":                 {separators, "s/a:1 s/b:1 s/c:1 s/d:1 s/e:1"},
		"end and start":          {a + "...\n---\n" + b, "a:latest b:latest"},
		"end alone":              {a + "...\n" + b, "a:latest b:latest"},
		"end with a comment":     {a + "... # the end\n# of it\n" + b, "a:latest b:latest"},
		"end at the end":         {a + "---\n" + b + "...", "a:latest b:latest"},
		"separator at the end":   {a + "---\n" + b + "---", "a:latest b:latest"},
		"many separators":        {"---\n---\n" + a + "---\n---\n---\n" + b + "---\n---\n", "a:latest b:latest"},
		"blanks after separator": {a + "--- \t \n" + b, "a:latest b:latest"},
		"starts on the line":     {"--- {" + flow(a) + "}\n--- {" + flow(b) + "}\n", "a:latest b:latest"},
		"tag on the line":        {a + "--- !!map\n" + b, "a:latest b:latest"},
		"anchor on the line":     {"# x\n--- &x\n" + a + "---\t&y\n" + b, "a:latest b:latest"},
		"directive":              {"%YAML 1.1\n---\n" + a, "a:latest"},
		"typed list":             {"--- # list\n" + a + "--- {apiVersion: v1, kind: PodList, items: [{metadata: {name: b}, spec: {containers: [{name: c, image: lab.test/b}]}}]}\n...\n", "a:latest b:latest"},
	} {
		t.Run(name, func(t *testing.T) {
			var plain []string
			for _, end := range []string{"LF", "CRLF", "CR"} {
				text := lineEnds[end](tc.text)
				for _, kustomized := range []bool{false, true} {
					if name == "directive" && kustomized {
						continue // kustomize refuses it, and says so
					}
					lines := search(t, tree(t, map[string]string{"f.yaml": text}, kustomized))
					if got := references(lines); got != tc.want {
						t.Errorf("%s, kustomized %v: got %q, want %q", end, kustomized, got, tc.want)
					}
					if kustomized {
						continue
					}
					if end == "LF" {
						plain = lines
					}
					same(t, lines, plain)
				}
			}
		})
	}
}

// TestSeparatorPlaces counts documents in a file as people do: those with content.
func TestSeparatorPlaces(t *testing.T) {
	for end, of := range lineEnds {
		t.Run(end, func(t *testing.T) {
			same(t, search(t, tree(t, map[string]string{"s.yaml": of(separators)}, false)), []string{
				"lab.test/s/a:1 required s.yaml, document 1: Pod a spec.containers[0].image",
				"lab.test/s/b:1 required s.yaml, document 2: Pod b spec.containers[0].image",
				`lab.test/s/c:1 runtime s.yaml, document 3: ConfigMap t data["inner.yaml"] > spec.containers[0].image`,
				`lab.test/s/d:1 runtime s.yaml, document 3: ConfigMap t data["inner.yaml"] > spec.containers[0].image`,
				"lab.test/s/e:1 required s.yaml, document 4: Pod e spec.containers[0].image",
			})
		})
	}
}

// TestLineNumbers wants errors to have the same line whatever ends a line.
func TestLineNumbers(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{separators + "\n---\nkind: X\na: \"\\z\"\n", "line 31"},
		{"kind: X\n...\nkind: Y\na: @\n", "line 4"},
		{"# x\n--- {kind: X}\n---\n- a\n", "line 4"},
	} {
		for _, end := range []string{"LF", "CRLF"} {
			if _, err := manifest.Parse("f.yaml", []byte(lineEnds[end](tc.text))); err == nil || !strings.Contains(err.Error(), tc.want+":") {
				t.Errorf("%s: got %v, want %s", end, err, tc.want)
			}
		}
	}
	for _, end := range []string{"LF", "CRLF"} {
		_, err := manifest.Render(fstest.MapFS{"k/kustomization.yaml": {Data: []byte(lineEnds[end]("# x\nresources:\n- a.yaml\n- https://h.example/x.yaml\n"))},
			"k/a.yaml": {Data: []byte("kind: X\n")}}, "k")
		if err == nil || !strings.Contains(err.Error(), "k/kustomization.yaml:4: ") {
			t.Errorf("%s: got %v, want line 4", end, err)
		}
	}
}

// TestKustomizationWithCRLF has CRLF in all that a kustomization reads: itself, patches, an
// env file, and a text that goes into a config map as it is.
func TestKustomizationWithCRLF(t *testing.T) {
	files := map[string]string{
		"kustomization.yaml": `resources:
- pod.yaml
patches:
- path: patch.yaml
- target: {kind: Pod}
  patch: |
    - op: add
      path: /spec/containers/-
      value: {name: d, image: lab.test/d}
images:
- name: lab.test/old
  newName: lab.test/new
  newTag: v2
configMapGenerator:
- name: g
  envs: [g.env]
  files: [known_hosts, job.yaml]
`,
		"pod.yaml":    "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: c\n    image: lab.test/old:v1\n",
		"patch.yaml":  "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  initContainers:\n  - name: i\n    image: lab.test/init\n",
		"g.env":       "# images\nAPP_IMAGE=lab.test/env:1\nOTHER=x\n",
		"known_hosts": "# lab.test/known:1\nhost ssh-ed25519 AAAA\n",
		"job.yaml":    "image: lab.test/job:1\nargs: [a]\n",
	}
	render := func(of func(string) string) ([]manifest.Object, string) {
		fsys := fstest.MapFS{}
		for name, text := range files {
			fsys["k/"+name] = &fstest.MapFile{Data: []byte(of(text))}
		}
		objs, err := manifest.Render(fsys, "k")
		if err != nil {
			t.Fatal(err)
		}
		found, err := manifest.Images(objs)
		if err != nil {
			t.Fatal(err)
		}
		var refs []string
		for _, im := range found.Images {
			refs = append(refs, im.Reference)
		}
		return objs, references(refs)
	}
	for _, end := range []string{"LF", "CRLF"} {
		objs, got := render(lineEnds[end])
		if want := "d:latest env:1 init:latest job:1 known:1 new:v2"; got != want {
			t.Errorf("%s: got %q, want %q", end, got, want)
		}
		for _, o := range objs {
			if data, ok := o.Value["data"].(map[string]any); ok {
				if data["OTHER"] != "x" {
					t.Errorf("%s: a variable is %q", end, data["OTHER"])
				}
				if data["known_hosts"] != lineEnds[end](files["known_hosts"]) {
					t.Errorf("%s: a file's text became %q", end, data["known_hosts"])
				}
			}
		}
	}
}

// TestBombAfterEnd makes sure that a bomb behind the end of a document is seen.
func TestBombAfterEnd(t *testing.T) {
	text := "kind: X\n...\n" + bomb(9)
	if _, err := manifest.Parse("f.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), "too large or too deep") {
		t.Errorf("Parse: got %v", err)
	}
	if _, err := manifest.Read(t.Context(), tree(t, map[string]string{"f.yaml": text}, true), nil, nil); err == nil || !strings.Contains(err.Error(), "too large or too deep") {
		t.Errorf("as a kustomization: got %v", err)
	}
}
