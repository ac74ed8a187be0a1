package images

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"atoll/bundle"
	"atoll/bundle/bounds"
	"atoll/test/regtest"
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
		`{"manifests":[` + strings.Repeat("{},", bounds.ImageElements+1) + `{}]}`,
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

// What lock has read is not asked for again, by lock or by mirror; what was not needed for
// it is, and comes after what is.
func TestResolveKeepsWhatItReads(t *testing.T) {
	r := regtest.New(t)
	image := r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(1, 5000)}})
	other := others(r)[0]
	r.AddIndex([]v1.Descriptor{other, image}, "lab/one:1")
	r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(2, 5000)}}, "lab/two:1")
	s := newStore(t)
	var locked []bundle.LockedImage
	for i, want := range []int{2 + 1 + 2, 2} { // two tags, one child, two configs
		c, err := newClient(caseOptions(r))
		if err != nil {
			t.Fatal(err)
		}
		c.store = s
		if locked, err = c.resolveImages(t.Context(), []Wanted{{Reference: "lab.test/lab/one:1", Tier: bundle.TierRequired}, {Reference: "lab.test/lab/two:1", Tier: bundle.TierRequired}}, "amd64"); err != nil {
			t.Fatal(err)
		}
		if n := r.Count(regtest.Manifest, regtest.Blob); n != want {
			t.Errorf("locking for the %d. time makes %d requests, want %d", i+1, n, want)
		}
		r.Forget()
	}
	if err := mirrorCase(t, caseOptions(r), s, locked); err != nil {
		t.Fatal(err)
	}
	if got := asked(r, regtest.Manifest, http.MethodGet); !slices.Equal(got, []string{other.Digest.String()}) {
		t.Errorf("mirroring asks for the manifests %v, want only that of the other platform", got)
	}
	verify(t, s, locked)
}

// asked are the names of the manifests or blobs that were asked for, in their order.
func asked(r *regtest.Registry, kind regtest.Kind, method string) (names []string) {
	for _, q := range r.Requests() {
		if q.Kind == kind && q.Method == method {
			names = append(names, q.Name)
		}
	}
	return names
}

// Manifests of other platforms are asked for after what is needed, and nothing fails for
// want of them.
func TestOtherPlatformsAreNotNeeded(t *testing.T) {
	for name, fault := range map[string]regtest.Fault{
		"none": func(regtest.Request, *regtest.Answer) {}, "gone": regtest.Refuse(404), "denied": regtest.Refuse(403),
		"too many": regtest.Refuse(429, "Retry-After", "3600"), "corrupt": regtest.Flip, "dropped": regtest.Drop,
	} {
		t.Run(name, func(t *testing.T) {
			r := regtest.New(t)
			var refs, spare []string
			for i := range 20 {
				layer := [][]byte{regtest.Bytes(uint64(i), 500)}
				amd, arm := r.AddImage(regtest.Image{Arch: "amd64", Layers: layer}), r.AddImage(regtest.Image{Arch: "arm64", Layers: layer})
				ref := fmt.Sprintf("lab/image%d:1", i)
				r.AddIndex([]v1.Descriptor{arm, amd}, ref)
				refs, spare = append(refs, "lab.test/"+ref), append(spare, arm.Digest.String())
			}
			locked := mustLock(t, caseOptions(r), refs...)
			r.Forget()
			r.Break(regtest.Of(fault, spare...))
			s := newStore(t)
			if err := mirrorCase(t, caseOptions(r), s, locked); err != nil {
				t.Fatal(err)
			}
			verify(t, s, locked)
			got := asked(r, regtest.Manifest, http.MethodGet)
			first := slices.IndexFunc(got, func(n string) bool { return slices.Contains(spare, n) })
			if first < 2*len(refs) {
				t.Errorf("another platform's manifest is asked for by request %d; what is needed takes %d", first+1, 2*len(refs))
			}
			if most := 2*len(refs) + 5*maxTries*8; len(got) > most {
				t.Errorf("%d requests for manifests, want at most %d", len(got), most)
			}
		})
	}
}

// A registry that copied one platform may lack the configs of the others.
func TestOtherPlatformsConfigIsNotNeeded(t *testing.T) {
	r := regtest.New(t)
	image := r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(1, 5000)}})
	other := others(r)[0]
	r.AddIndex([]v1.Descriptor{other, image}, "lab/one:1")
	locked := mustLock(t, caseOptions(r), "lab.test/lab/one:1")
	var m v1.Manifest
	if err := json.Unmarshal(r.Content(other.Digest), &m); err != nil {
		t.Fatal(err)
	}
	r.Break(regtest.Of(regtest.Refuse(404), m.Config.Digest.String()))
	s := newStore(t)
	if err := mirrorCase(t, caseOptions(r), s, locked); err != nil {
		t.Fatal(err)
	}
	verify(t, s, locked)
}
