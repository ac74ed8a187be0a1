package images

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"atoll/bundle"
)

func TestResolveImagesTellsAllAtOnce(t *testing.T) {
	l := newLab(t)
	l.push(t, randomImage(t, "arm64", 1000, 1), "ghcr.io/a/arm:1")
	l.push(t, randomIndex(t, map[string]v1.Image{"s390x": randomImage(t, "s390x", 1000, 1)}), "ghcr.io/a/big:1")
	o := l.options()
	o.Mirrors["down.test"] = "http://127.0.0.1:1"
	c, err := newClient(o)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.resolveImages(context.Background(), []Wanted{
		{Reference: "ghcr.io/a/arm:1"}, {Reference: "ghcr.io/a/big:1"}, {Reference: "ghcr.io/a/none:1"},
		{Reference: "down.test/a/x:1"}, {Reference: "ghcr.io/a/x@sha512:" + strings.Repeat("a", 128)},
	}, "amd64")
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"ghcr.io/a/arm:1 at 127.0.0.1:", "image is for linux/arm64, not for linux/amd64",
		"its platforms: linux/s390x", "ghcr.io/a/none:1: 127.0.0.1:", "does not have it: check the name and tag",
		"down.test/a/x:1: 127.0.0.1:1 cannot be reached", "other than sha256",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

func TestResolveNestedIndex(t *testing.T) {
	l := newLab(t)
	img := randomImage(t, "amd64", 1000, 1)
	idx := randomIndex(t, map[string]v1.Image{"amd64": img})
	for range maxNesting - 1 {
		idx = mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: idx})
	}
	l.push(t, idx, "ghcr.io/a/deep:1")
	lock := l.lockImages(t, "ghcr.io/a/deep:1")
	if lock.Images[0].Manifest != digest(t, img) {
		t.Errorf("manifest is %s, want %s", lock.Images[0].Manifest, digest(t, img))
	}
	s := newStore(t)
	if err := Mirror(context.Background(), definition(t, ""), lock, s, l.options()); err != nil {
		t.Fatal(err)
	}
	checkImage(t, s, img, true)

	for range 2 {
		idx = mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: idx})
	}
	l.push(t, idx, "ghcr.io/a/deeper:1")
	c, err := newClient(l.options())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.resolveImages(context.Background(), []Wanted{{Reference: "ghcr.io/a/deeper:1"}}, "amd64"); err == nil || !strings.Contains(err.Error(), "more than 4 indexes") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestMerge(t *testing.T) {
	got, err := merge([]Wanted{
		{Reference: "busybox", Tier: bundle.TierRuntime, Where: []string{"a"}},
		{Reference: "docker.io/library/busybox:latest", Tier: bundle.TierRequired, Where: []string{"b"}},
	})
	if err != nil || len(got) != 1 || got[0].Tier != bundle.TierRequired || len(got[0].Where) != 2 {
		t.Errorf("got %v, %v, want one image that is required at two places", got, err)
	}
}

func TestParseNodeBounds(t *testing.T) {
	for _, in := range []string{
		`{"schemaVersion":1,"name":"x"}`, `{}`, `[`, `{"mediaType":"text/plain"}`,
		`{"manifests":[` + strings.Repeat("{},", maxElements+1) + `{}]}`,
	} {
		if n, err := parseNode([]byte(in)); err == nil {
			t.Errorf("parseNode(%.40q) = %v, want an error", in, n)
		}
	}
}

// release writes a k3s release to a folder and gives what sha256sum says of two of its files.
func release(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	sums := ""
	for _, f := range k3sFiles("amd64") {
		data := []byte("content of " + f.name)
		if err := os.WriteFile(filepath.Join(dir, f.remote), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if f.name != "k3s-images.txt" {
			sums += bundle.DigestOf(data).Hex + "  " + f.remote + "\r\n"
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "sha256sum-amd64.txt"), []byte(sums), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
