package manifest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"atoll/bundle"
	"atoll/bundle/manifest"
	"atoll/bundle/source"
	"atoll/bundle/stack"
)

const pod = `apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: n}
spec: {containers: [{name: c, image: "lab.test/%[1]s:1"}]}
`

// shop is a stack with all that one may choose in.
func shop() *stack.Stack {
	fsys := fstest.MapFS{}
	component := func(name, text string) {
		fsys[name+"/kustomization.yaml"] = &fstest.MapFile{Data: []byte("resources: [all.yaml]\n")}
		fsys[name+"/all.yaml"] = &fstest.MapFile{Data: []byte(text)}
	}
	component("web", fmt.Sprintf(pod, "web")+`---
apiVersion: v1
kind: ConfigMap
metadata: {name: menu, namespace: n}
data:
  menu.yaml: |
    # what one may start
    options:
      - lab.test/small:1
      - lab.test/cuda:1   # a large one
---
apiVersion: lab.test/v1
kind: Runtime
metadata: {name: cuda}
spec: {containers: [{name: c, image: "lab.test/cuda:1"}]}
---
apiVersion: v1
kind: Secret
metadata: {name: login, namespace: n}
data: {password: MTIzNDEyMzQ=, user: bWU=}
`)
	component("door", fmt.Sprintf(pod, "door"))
	component("gate", fmt.Sprintf(pod, "gate"))
	return &stack.Stack{
		Name: "shop", FS: fsys,
		Auth: []stack.Auth{{Name: "door", Components: []string{"door"}}, {Name: "gate", Components: []string{"gate"}}},
		Phases: []stack.Phase{
			{Name: "base", Components: []string{"web", "door", "gate"}, Timeout: time.Minute},
			{Name: "late", Kinds: []string{"Runtime"}, Timeout: time.Minute},
		},
		Extras:      []stack.Extra{{Image: "python:3.11", Component: "web", Reason: "compiled in"}},
		Optional:    []stack.Optional{{Images: "lab.test/*cuda*", Off: true, Reason: "needs a card"}, {Images: "lab.test/small:*", Reason: "a choice"}},
		Substitutes: []stack.Substitute{{Image: "lab.test/web:1", From: "other.test/web:1", Reason: "gone"}},
		Denied:      []stack.Waiver{{Image: "lab.test/never:1", Reason: "a placeholder"}},
		Prune:       []string{"Runtime"},
		Secrets: []bundle.Secret{
			{Name: "password", Reason: "login", Keys: []bundle.SecretKey{{Namespace: "n", Secret: "login", Key: "password"}, {Namespace: "n", Secret: "absent", Key: "x"}}},
			{Name: "of-another-way", Reason: "none", Keys: []bundle.SecretKey{{Namespace: "n", Secret: "absent", Key: "x"}}},
		},
	}
}

func planOf(t *testing.T, s *stack.Stack, d *bundle.Definition) (*bundle.Plan, *manifest.Findings) {
	t.Helper()
	p, f, err := manifest.Plan(t.Context(), manifest.Input{Stack: s, Definition: d})
	if err != nil {
		t.Fatal(err)
	}
	return p, f
}

// lines gives what the appliance gets, one image a line.
func lines(f *manifest.Findings) []string {
	var out []string
	for _, im := range f.Images {
		line := im.Reference + " " + im.Tier
		if im.From != "" {
			line += " from " + im.From
		}
		if im.Omitted != "" {
			line += ", " + im.Omitted
		}
		out = append(out, line)
	}
	return out
}

func TestChoose(t *testing.T) {
	p, f := planOf(t, shop(), &bundle.Definition{})
	want := []string{
		"docker.io/library/python:3.11 runtime",
		"lab.test/cuda:1 optional, needs a card",
		"lab.test/door:1 required",
		"lab.test/small:1 optional",
		"lab.test/web:1 required from other.test/web:1",
	}
	if got := lines(f); !slices.Equal(got, want) {
		t.Errorf("images:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	text := string(encode(t, p))
	for _, gone := range []string{"cuda", "MTIzNDEyMzQ", "gate", "Runtime"} {
		if strings.Contains(text, gone) {
			t.Errorf("%s is in the plan", gone)
		}
	}
	for _, there := range []string{"# what one may start", "lab.test/small:1", "bWU=", `password: \"\"`} {
		if !strings.Contains(text, there) {
			t.Errorf("%s is not in the plan", there)
		}
	}
	if len(p.Secrets) != 1 || len(p.Secrets[0].Keys) != 1 || p.Secrets[0].Keys[0].Secret != "login" {
		t.Errorf("secrets: %+v", p.Secrets)
	}
	if len(p.Phases) != 1 {
		t.Errorf("%d phases, want none that is empty", len(p.Phases))
	}

	p, f = planOf(t, shop(), &bundle.Definition{Auth: "gate", IncludeImages: []string{"*cuda*"}, ExcludeImages: []string{"python:3.11"}})
	want = []string{
		"docker.io/library/python:3.11 runtime, excluded by the definition",
		"lab.test/cuda:1 optional",
		"lab.test/gate:1 required",
		"lab.test/small:1 optional",
		"lab.test/web:1 required from other.test/web:1",
	}
	if got := lines(f); !slices.Equal(got, want) {
		t.Errorf("images:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if last := p.Phases[len(p.Phases)-1]; last.Name != "late" || !strings.Contains(last.Manifest, "kind: Runtime") {
		t.Errorf("last phase: %+v", last)
	}

	_, f = planOf(t, shop(), &bundle.Definition{Without: []string{"web"}})
	if got := lines(f); !slices.Equal(got, []string{"lab.test/door:1 required"}) {
		t.Errorf("images without web: %s", got)
	}
	_, f = planOf(t, shop(), &bundle.Definition{Images: []string{"lab.test/cuda:1", "busybox"}})
	if got := strings.Join(lines(f), "\n"); !strings.Contains(got, "lab.test/cuda:1 optional\n") || !strings.Contains(got, "docker.io/library/busybox:latest runtime") {
		t.Errorf("images that the user asks for: %s", got)
	}
}

// TestChooseMadeOnNode: what somebody pushes to the node's registry is nothing to mirror, and
// nothing to take out of the plan, whatever the definition says of other images.
func TestChooseMadeOnNode(t *testing.T) {
	s := shop()
	const made = bundle.NodeRegistry + "/n/made:1"
	s.FS.(fstest.MapFS)["web/all.yaml"].Data = append(s.FS.(fstest.MapFS)["web/all.yaml"].Data, []byte(`---
apiVersion: v1
kind: Pod
metadata: {name: made, namespace: n}
spec: {containers: [{name: c, image: "`+made+`", args: ["`+bundle.NodeRegistry+`/n/pushed:1"]}]}
---
apiVersion: lab.test/v1
kind: Runtime
metadata: {name: made}
spec: {containers: [{name: c, image: "`+made+`"}]}
`)...)
	for _, d := range []bundle.Definition{{}, {IncludeImages: []string{"*"}}, {ExcludeImages: []string{"*m*a*:1"}}} {
		p, f := planOf(t, s, &d)
		got := strings.Join(lines(f), "\n") + "\n"
		for _, want := range []string{made + " required, made on the node\n", bundle.NodeRegistry + "/n/pushed:1 runtime, made on the node\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("%+v: images lack %q:\n%s", d, want, got)
			}
		}
		if text := string(encode(t, p)); strings.Count(text, made) != 2 {
			t.Errorf("%+v: the plan has not both objects that run it", d)
		}
	}
}

// TestRegistries: a setting with registries has those of all images of the appliance, a user's
// among them, behind upstream's own.
func TestRegistries(t *testing.T) {
	s := shop()
	s.FS.(fstest.MapFS)["web/all.yaml"].Data = append(s.FS.(fstest.MapFS)["web/all.yaml"].Data, []byte(`---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: n}
data: {skip: "dev.local,lab.test", other: kept}
`)...)
	s.Registries = []stack.Registries{{Namespace: "n", ConfigMap: "settings", Key: "skip", Reason: "no network"}, {Namespace: "n", ConfigMap: "absent", Key: "x", Reason: "off"}}
	p, _ := planOf(t, s, &bundle.Definition{Images: []string{"mine.test:5000/team/model:1"}, ExcludeImages: []string{"lab.test/small:1"}})
	if text := string(encode(t, p)); !strings.Contains(text, "skip: dev.local,lab.test,docker.io,index.docker.io,mine.test:5000\\n") || !strings.Contains(text, "other: kept") {
		t.Errorf("the plan: %s", text)
	}
	s.Registries[0].Key = "skipp"
	if _, _, err := manifest.Plan(t.Context(), manifest.Input{Stack: s, Definition: &bundle.Definition{}}); err == nil || !strings.Contains(err.Error(), "ConfigMap n/settings has no key skipp") {
		t.Errorf("a key that is not there: %v", err)
	}
}

// TestChooseRefuses: whatever nothing comes of is told, never passed over.
func TestChooseRefuses(t *testing.T) {
	stale := func(change func(*stack.Stack)) *stack.Stack {
		s := shop()
		change(s)
		return s
	}
	for _, tc := range []struct {
		name  string
		stack *stack.Stack
		def   bundle.Definition
		want  string
	}{
		{"auth", shop(), bundle.Definition{Auth: "window"}, "it has door, gate"},
		{"component", shop(), bundle.Definition{Without: []string{"kitchen"}}, "it has web, door, gate"},
		{"include", shop(), bundle.Definition{IncludeImages: []string{"*rocm*"}}, `includeImages[0]: "*rocm*" is no image`},
		{"exclude", shop(), bundle.Definition{ExcludeImages: []string{"lab.test/x:1"}}, `excludeImages[0]: "lab.test/x:1" is no image`},
		{"required", shop(), bundle.Definition{ExcludeImages: []string{"*web*"}}, "lab.test/web:1 is required: web: Pod n/web"},
		{"made on the node", shop(), bundle.Definition{Images: []string{bundle.NodeRegistry + "/n/made:1"}}, "is made on the node"},
		{"denied", shop(), bundle.Definition{Images: []string{"lab.test/never:1"}}, "a placeholder"},
		{"overlay", shop(), bundle.Definition{Overlays: []string{"absent"}}, "overlay absent"},
		{"optional", stale(func(s *stack.Stack) { s.Optional[0].Images = "lab.test/rocm*" }), bundle.Definition{}, "rocm"},
		{"substitute", stale(func(s *stack.Stack) { s.Substitutes[0].Image = "lab.test/wob:1" }), bundle.Definition{}, "wob"},
		{"secret", stale(func(s *stack.Stack) { s.Secrets[0].Keys[0].Key = "passwort" }), bundle.Definition{}, "no key passwort"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := manifest.Plan(t.Context(), manifest.Input{Stack: tc.stack, Definition: &tc.def})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

// TestOverlays adds what a user's kustomization has, and does to everything what a
// Component says.
func TestOverlays(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("appliance.yaml", "name: a\nk3s: {version: v1.34.4+k3s1}\nstack: lab\noverlays: [mine, patch]\n")
	write("mine/kustomization.yaml", "resources: [pod.yaml]\n")
	write("mine/pod.yaml", fmt.Sprintf(pod, "mine"))
	write("patch/kustomization.yaml", `apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
labels: [{pairs: {site: north}}]
patches:
- target: {kind: Pod, name: web}
  patch: |
    - {op: replace, path: /spec/containers/0/image, value: "lab.test/mended:2"}
`)
	d, err := bundle.ReadDefinition(filepath.Join(dir, "appliance.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	p, f := planOf(t, shop(), d)
	got := strings.Join(lines(f), "\n")
	if strings.Contains(got, "lab.test/web:1") || !strings.Contains(got, "lab.test/mended:2 required") || !strings.Contains(got, "lab.test/mine:1 required") {
		t.Errorf("images:\n%s", got)
	}
	last := p.Phases[len(p.Phases)-1]
	if last.Name != "overlays" || !strings.Contains(last.Manifest, "name: mine") || strings.Contains(last.Manifest, "name: web") {
		t.Errorf("last phase: %+v", last)
	}
	if n := strings.Count(string(encode(t, p)), "site: north"); n != 5 {
		t.Errorf("%d objects have the label, want all 5", n)
	}
	write("mine/kustomization.yaml", "resources: [../../x.yaml]\n")
	if _, _, err := manifest.Plan(t.Context(), manifest.Input{Stack: shop(), Definition: d}); err == nil || !strings.Contains(err.Error(), "overlay mine") {
		t.Errorf("got %v, want a refusal of what is outside of the overlay", err)
	}
}

// TestSources builds on trees that kustomizations name by URL, in all the ways to write one.
func TestSources(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"config/base/kustomization.yaml": "resources: [pod.yaml]\n",
		"config/base/pod.yaml":           fmt.Sprintf(pod, "up"),
		"patch.yaml":                     "apiVersion: v1\nkind: Pod\nmetadata: {name: up, namespace: n, labels: {patched: 'yes'}}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := source.ReadFolder(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	render := func(kustomization string) (string, error) {
		s := &stack.Stack{
			Name: "s", Phases: []stack.Phase{{Name: "p", Components: []string{"c"}, Timeout: time.Minute}},
			Sources: []bundle.Source{
				{Name: "up", Repository: "https://github.com/org/up", Ref: "v1", Commit: "c0ffee"},
				{Name: "file", URL: "https://get.test/v2/patch.yaml"},
			},
			FS: fstest.MapFS{"c/kustomization.yaml": {Data: []byte(kustomization)}},
		}
		p, _, err := manifest.Plan(t.Context(), manifest.Input{Stack: s, Definition: &bundle.Definition{},
			Sources: map[string]*source.Tree{"up": tree, "file": source.FromFile("patch.yaml", []byte("apiVersion: v1\nkind: Service\nmetadata: {name: of-a-file}\n"))}})
		if err != nil {
			return "", err
		}
		return p.Phases[0].Manifest, nil
	}
	for _, url := range []string{
		"https://github.com/org/up/config/base?ref=v1", "https://github.com/org/up//config/base?ref=v1",
		"https://github.com/org/up.git/config/base?ref=c0ffee", "github.com/org/up/config/base?ref=v1&timeout=90s",
		"git::https://github.com/org/up//config/base?version=v1", "git@github.com:org/up//config/base?ref=v1",
		"ssh://git@github.com/org/up//config/base?ref=v1", "https://GitHub.com/org/up/config/base/?ref=v1",
	} {
		if text, err := render("resources: ['" + url + "']\n"); err != nil || !strings.Contains(text, "name: up") {
			t.Errorf("%s: %v", url, err)
		}
	}
	if text, err := render("# as published\nresources:\n- https://get.test/v2/patch.yaml\n- https://github.com/org/up/config/base?ref=v1\n"); err != nil || !strings.Contains(text, "of-a-file") {
		t.Errorf("a file: %v", err)
	}
	for _, tc := range []struct{ url, want string }{
		{"https://github.com/org/up/config/base?ref=v2", `c/kustomization.yaml:2: resources: "https://github.com/org/up/config/base?ref=v2" is remote: no source has it`},
		{"https://github.com/org/up/config/base", "no source has it"},
		{"https://github.com/org/upper/config/base?ref=v1", "no source has it"},
		{"https://evil.test/org/up/config/base?ref=v1", "no source has it"},
		{"https://get.test/v3/patch.yaml", "no source has it"},
		{"https://github.com/org/up/absent?ref=v1", "source up has no absent"},
		{"https://github.com/org/up/../../../c?ref=v1", "source up has no c"},
	} {
		if _, err := render("\nresources: ['" + tc.url + "']\n"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", tc.url, err, tc.want)
		}
	}
}

// TestReadWithSources reads a kustomization on disk that names a source, and leaves it as it is.
func TestReadWithSources(t *testing.T) {
	dir := t.TempDir()
	const text = "resources: ['https://get.test/v2/all.yaml']\n"
	path := filepath.Join(dir, "kustomization.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	sources := []bundle.Source{{Name: "all", URL: "https://get.test/v2/all.yaml"}}
	objs, err := manifest.Read(t.Context(), dir, sources, map[string]*source.Tree{"all": source.FromFile("all.yaml", fmt.Appendf(nil, pod, "p"))})
	if err != nil || len(objs) != 1 || objs[0].Source != dir {
		t.Errorf("got %v, %v, want one object of %s", objs, err, dir)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != text {
		t.Errorf("the file is now %q, %v", data, err)
	}
	var remote *manifest.RemoteError
	if _, err := manifest.Read(t.Context(), dir, nil, nil); !errors.As(err, &remote) || remote.File != path || remote.Line != 1 {
		t.Errorf("got %v, want an error that names file, line and URL", err)
	}
}
