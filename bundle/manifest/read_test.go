package manifest_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"atoll/bundle/manifest"
)

// layout writes a tree below a new folder, and returns the folder. A name that ends in "|"
// is a pipe, "=" a socket; content that starts with "->" is a symbolic link's.
func layout(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, strings.TrimRight(name, "|="))
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch to, link := strings.CutPrefix(text, "->"); {
		case err != nil:
		case strings.HasSuffix(name, "|"):
			err = syscall.Mkfifo(path, 0o644)
		case strings.HasSuffix(name, "="):
			var l net.Listener
			if l, err = net.Listen("unix", path); err == nil {
				t.Cleanup(func() { l.Close() })
			}
		case link:
			err = os.Symlink(strings.ReplaceAll(to, "DIR", dir), path)
		default:
			err = os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestReadRefuses has manifests that are no regular files, which nothing may wait for, and
// what lies outside of the folder that is read.
func TestReadRefuses(t *testing.T) {
	const secret = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: secret}\n"
	kust := func(s string) map[string]string {
		return map[string]string{"k/kustomization.yaml": s, "k/x.yaml": object, "secret.yaml": secret, "k/sub/s.txt": "s"}
	}
	with := func(files map[string]string, name, text string) map[string]string {
		files[name] = text
		return files
	}
	for name, tc := range map[string]struct {
		files map[string]string
		read  string // k is the default
		want  []string
	}{
		"pipe":                           {files: map[string]string{"k/a.yaml|": ""}, want: []string{"a.yaml is a ", "not a regular file"}},
		"pipe by its name":               {files: map[string]string{"a.yaml|": ""}, read: "a.yaml", want: []string{"a.yaml is a ", "not a regular file"}},
		"socket":                         {files: map[string]string{"k/a.json=": ""}, want: []string{"a.json is a ", "not a regular file"}},
		"device":                         {files: map[string]string{"a.yaml": "->/dev/zero"}, read: "a.yaml", want: []string{"a.yaml is a character device", "not a regular file"}},
		"link to a device":               {files: map[string]string{"k/a.yaml": "->/dev/zero"}, want: []string{"a.yaml"}},
		"link out of the folder":         {files: map[string]string{"k/a.yaml": "->../secret.yaml", "secret.yaml": secret}, want: []string{"a.yaml", "outside"}},
		"pipe as a kustomization":        {files: map[string]string{"k/kustomization.yaml|": ""}, want: []string{"kustomization.yaml is a ", "not a regular file"}},
		"kustomization's link out":       {files: map[string]string{"k/kustomization.yaml": "->../k.yaml", "k.yaml": "resources: []\n"}, want: []string{"kustomization.yaml", "outside"}},
		"pipe as a resource":             {files: with(kust("resources: [p.yaml]\n"), "k/p.yaml|", ""), want: []string{"p.yaml is a ", "not a regular file"}},
		"pipe as text":                   {files: with(kust("configMapGenerator: [{name: c, files: [p]}]\n"), "k/p|", ""), want: []string{"p is a ", "not a regular file"}},
		"resource above":                 {files: kust("resources: [../secret.yaml]\n"), want: []string{"k/kustomization.yaml:1: resources", "outside"}},
		"/etc/passwd as text":            {files: kust("configMapGenerator: [{name: c, files: [/etc/passwd]}]\n"), want: []string{"k/kustomization.yaml:1: configMapGenerator.files", "outside"}},
		"text above":                     {files: kust("configMapGenerator: [{name: c, files: ['k=../secret.yaml']}]\n"), want: []string{"outside"}},
		"variables above":                {files: kust("secretGenerator: [{name: c, envs: ['../secret.yaml']}]\n"), want: []string{"outside"}},
		"patch above":                    {files: kust("resources: [x.yaml]\npatches: [{path: ../secret.yaml}]\n"), want: []string{"outside"}},
		"link out, as text":              {files: with(kust("configMapGenerator: [{name: c, files: [l]}]\n"), "k/l", "->/etc/passwd"), want: []string{"outside"}},
		"folder's link out, as text":     {files: with(kust("configMapGenerator: [{name: c, files: [l/secret.yaml]}]\n"), "k/l", "->.."), want: []string{"outside"}},
		"plugin's file above":            {files: with(kust("resources: [x.yaml]\ntransformers: [p.yaml]\n"), "k/p.yaml", "apiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: p}\npath: ../secret.yaml\n"), want: []string{"outside"}},
		"a base's file above it":         {files: with(kust("resources: [../b]\n"), "b/kustomization.yaml", "configMapGenerator: [{name: c, files: [../secret.yaml]}]\n"), want: []string{"b/kustomization.yaml:1", "outside"}},
		"text that is a folder":          {files: kust("configMapGenerator: [{name: c, files: [sub]}]\n"), want: []string{"sub"}},
		"resource that is not there":     {files: kust("resources: [y.yaml]\n"), want: []string{`"y.yaml" is not in the tree`}},
		"a base without a kustomization": {files: kust("resources: [sub]\n"), want: []string{"has no kustomization.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := layout(t, tc.files)
			if tc.read == "" {
				tc.read = "k"
			}
			objs, err := manifest.Read(t.Context(), filepath.Join(dir, tc.read), nil, nil)
			for _, part := range tc.want {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("got %v, %v, want an error with %q", objs, err, part)
				}
			}
		})
	}
}

// TestReadTakes has what is legitimate: bases elsewhere, links that stay in a folder, and
// absolute paths into it.
func TestReadTakes(t *testing.T) {
	y := strings.ReplaceAll(object, "name: x", "name: y")
	for name, files := range map[string]map[string]string{
		"a base beside":        {"k/kustomization.yaml": "resources: [../b, y.yaml]\n", "k/y.yaml": y, "b/kustomization.yml": "resources: [x.yaml]\n", "b/x.yaml": object},
		"a link to a base":     {"k/kustomization.yaml": "resources: [b, y.yaml]\n", "k/y.yaml": y, "k/b": "->../b", "b/kustomization.yaml": "resources: [x.yaml]\n", "b/x.yaml": object},
		"a link inside":        {"k/kustomization.yaml": "resources: [l.yaml, sub/y.yaml]\n", "k/l.yaml": "->sub/x.yaml", "k/sub/x.yaml": object, "k/sub/y.yaml": y},
		"an absolute link":     {"k/kustomization.yaml": "resources: [l.yaml, sub/y.yaml]\n", "k/l.yaml": "->DIR/k/sub/x.yaml", "k/sub/x.yaml": object, "k/sub/y.yaml": y},
		"an absolute path":     {"k/kustomization.yaml": "resources: [DIR/k/x.yaml, y.yaml]\n", "k/x.yaml": object, "k/y.yaml": y},
		"a plain folder":       {"k/x.yaml": object, "k/sub/y.json": `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "y"}}`, "k/sub/pipe|": ""},
		"a link in the folder": {"k/x.yaml": "->sub/x.yaml", "k/sub/x.yaml": object},
		"a component":          {"k/kustomization.yaml": "resources: [x.yaml]\ncomponents: [../c]\n", "k/x.yaml": object, "c/kustomization.yaml": "kind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\nresources: [y.yaml]\n", "c/y.yaml": y},
	} {
		t.Run(name, func(t *testing.T) {
			objs, err := manifest.Read(t.Context(), filepath.Join(layout(t, files), "k"), nil, nil)
			if err != nil || len(objs) != 2 {
				t.Errorf("got %v, %v, want two objects", objs, err)
			}
		})
	}
}

// TestReadEnds wants reading to end when it is told to.
func TestReadEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, files := range map[string]map[string]string{
		"folder":        {"k/x.yaml": object},
		"kustomization": {"k/kustomization.yaml": "resources: [x.yaml]\n", "k/x.yaml": object},
	} {
		if _, err := manifest.Read(ctx, filepath.Join(layout(t, files), "k"), nil, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
