package registry

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// skopeo runs skopeo, which many people push with, from a pod of namespace c.
func skopeo(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("skopeo", append([]string{"--insecure-policy"}, args...)...)
	cmd.Env = append(cmd.Environ(), "REGISTRY_AUTH_FILE="+t.TempDir()+"/none.json")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("needs skopeo")
	}
	w := newWorld(t, func(o *Options) { o.Bundle = bundleServer(t, "docker.io/library/python:3.12") })
	path, err := layout.Write(t.TempDir(), mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image(t)}))
	if err != nil {
		t.Fatal(err)
	}
	source := "oci:" + string(path)
	to := func(image string) string { return "docker://" + w.host + "/" + image }
	for _, tc := range []struct {
		args []string
		want []string // in the output, if it fails
	}{
		{[]string{"copy", "--dest-tls-verify=false", source, to("c/app:1")}, nil},
		{[]string{"copy", "--dest-tls-verify=false", "--dest-creds=me:token-a", source, to("a/app:1")}, nil},
		{[]string{"copy", "--dest-tls-verify=false", "--dest-creds=root:" + rootPassword, source, to("d/app:1")}, nil},
		{[]string{"copy", "--src-tls-verify=false", "--dest-tls-verify=false", to("a/app:1"), to("c/copy:1")}, nil},
		{[]string{"copy", "--src-tls-verify=false", "--dest-tls-verify=false", to("docker.io/library/python:3.12"), to("c/python:1")}, nil},
		{[]string{"copy", "--src-tls-verify=false", to("c/app:1"), "dir:" + t.TempDir()}, nil},
		{[]string{"inspect", "--tls-verify=false", to("c/app:1")}, nil},
		{[]string{"list-tags", "--tls-verify=false", to("docker.io/library/python")}, nil},
		{[]string{"login", "--tls-verify=false", "-u", "me", "-p", "token-a", w.host}, nil},
		{[]string{"copy", "--dest-tls-verify=false", source, to("a/other:1")}, []string{"pushing to a/other refused", "below c/ only"}},
		{[]string{"copy", "--dest-tls-verify=false", "--dest-creds=me:token-a", source, to("b/app:1")}, []string{"you are service account a/default", "denied"}},
		{[]string{"copy", "--dest-tls-verify=false", "--dest-creds=me:wrong", source, to("c/app:2")}, []string{"unauthorized"}},
		{[]string{"copy", "--dest-tls-verify=false", source, to("docker.io/library/x:1")}, []string{"nobody changes"}},
		{[]string{"login", "--tls-verify=false", "-u", "me", "-p", "wrong", w.host}, []string{"invalid username/password"}},
		{[]string{"inspect", "--tls-verify=false", to("docker.io/library/python:3.13")}, []string{"images: [docker.io/library/python:3.13]"}},
		{[]string{"delete", "--tls-verify=false", to("a/app:1")}, []string{"deleting"}},
		{[]string{"delete", "--tls-verify=false", to("c/app:1")}, nil},
	} {
		out, err := skopeo(t, tc.args...)
		if (err == nil) != (tc.want == nil) {
			t.Errorf("skopeo %s: %v\n%s", strings.Join(tc.args, " "), err, out)
		}
		for _, want := range tc.want {
			if !strings.Contains(out, want) {
				t.Errorf("skopeo %s: lacks %q:\n%s", strings.Join(tc.args, " "), want, out)
			}
		}
	}
	w.whole("a/app:1")
	w.whole("c/copy:1")
	w.whole("c/python:1")
}
