package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"atoll/test/programs/imagedir"
)

// TestRealImages pushes real programs' images where a folder has them, under each name of
// their repository, and small ones elsewhere.
func TestRealImages(t *testing.T) {
	dir := t.TempDir()
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	d, err := imagedir.Add(dir, img)
	if err != nil {
		t.Fatal(err)
	}
	if err := imagedir.WriteIndex(dir, []imagedir.Entry{{Repository: "docker.io/library/mysql", Descriptor: d}}); err != nil {
		t.Fatal(err)
	}
	names := []string{"mysql:8.0", "docker.io/library/mysql:8.4", "docker.io/library/mysql@" + d.Digest.String(), "docker.io/library/mysql2:1"}
	list := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(list, []byte(strings.Join(names, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	base, err := layer(baseFiles(), true)
	if err != nil {
		t.Fatal(err)
	}
	b := builder{dir: t.TempDir(), base: base, layers: map[string]v1.Layer{}}
	images, err := b.more(t.Context(), extra{standIns: list, programs: dir})
	if err != nil {
		t.Fatal(err)
	}
	if len(images) != len(names) {
		t.Fatalf("%d images, want %d", len(images), len(names))
	}
	for n, im := range images {
		got, err := digestOf(im.what)
		if err != nil {
			t.Fatal(err)
		}
		if real := got == d.Digest; im.names[0] != names[n] || real != (n < 3) {
			t.Errorf("%s is %s", im.names, got)
		}
	}
	if _, err := b.more(t.Context(), extra{standIns: list, programs: t.TempDir()}); err == nil {
		t.Error("a folder without images is no error")
	}
}
