package kubeflow

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/random"

	"atoll/test/programs/imagedir"
)

func TestBootable(t *testing.T) {
	if err := Bootable(t.TempDir(), "oauth2-proxy", false); err == nil {
		t.Error("a folder without images is bootable")
	}
	for _, c := range []struct {
		has     []string
		auth    string
		full    bool
		missing string // "" if it is bootable
	}{
		{nil, "oauth2-proxy", false, proxy},
		{[]string{authService}, "authservice", false, proxy},
		{[]string{proxy, smallStore}, "oauth2-proxy", false, ""},
		{[]string{proxy, fullStore}, "oauth2-proxy", false, smallStore},
		{[]string{proxy, smallStore}, "oauth2-proxy", true, fullStore},
		{[]string{proxy, fullStore}, "oauth2-proxy", true, ""},
		{[]string{proxy, smallStore}, "authservice", false, authService},
		{[]string{proxy, authService, smallStore}, "authservice", false, ""},
	} {
		dir := t.TempDir()
		img, err := random.Image(10, 1)
		if err != nil {
			t.Fatal(err)
		}
		d, err := imagedir.Add(dir, img)
		if err != nil {
			t.Fatal(err)
		}
		var entries []imagedir.Entry
		for _, r := range c.has {
			entries = append(entries, imagedir.Entry{Repository: r, Descriptor: d})
		}
		if err := imagedir.WriteIndex(dir, entries); err != nil {
			t.Fatal(err)
		}
		err = Bootable(dir, c.auth, c.full)
		if (err == nil) != (c.missing == "") || err != nil && !strings.Contains(err.Error(), c.missing) {
			t.Errorf("%q with %s: %v, want %q missing", c.has, c.auth, err, c.missing)
		}
	}
}
