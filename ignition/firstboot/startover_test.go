package firstboot

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestStartOver boots again after a power cut before the stack was ready, and after it was.
func TestStartOver(t *testing.T) {
	b, root, o := pack(t, release, nil), newRoot(t), testOptions(t)
	prepare := func() []string {
		t.Helper()
		if err := Prepare(t.Context(), b, root, o); err != nil {
			t.Fatal(err)
		}
		return slices.Sorted(maps.Keys(tree(t, root)))
	}
	want := prepare()
	left := []string{
		k3sContainerd + "/io.containerd.metadata.v1.bolt/meta.db", k3sData + "/data/1/bin/runc", k3sData + "/server/db/etcd/wal",
		"var/lib/kubelet/pods/1/x", k3sConfig + "/k3s.yaml", "var/lib/cni/networks/cbr0/10.42.0.1",
	}
	for _, name := range left {
		put(t, root, name, "")
	}
	put(t, root, k3sImages+"/.cache.json", `{"imported": "once"}`)
	if got := prepare(); !slices.Equal(got, want) {
		t.Errorf("after a cut there is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := get(t, root, k3sImages+"/.cache.json"); got != "" {
		t.Errorf(".cache.json is %q: k3s would not import the images again", got)
	}

	put(t, root, installedPath, "{}")
	for _, name := range left {
		put(t, root, name, "kept")
	}
	prepare()
	for _, name := range left {
		if got := get(t, root, name); got != "kept" {
			t.Errorf("%s is %q after the stack was ready", name, got)
		}
	}
}
