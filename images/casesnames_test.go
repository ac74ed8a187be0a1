package images

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle"
	"atoll/test/regtest"
)

// TestTagAndDigest (12): one image under a tag, a digest, and both, where the tag has
// moved on, or is gone.
func TestTagAndDigest(t *testing.T) {
	for _, gone := range []bool{false, true} {
		r := regtest.New(t)
		one := r.AddImage(tiny(r), "lab/one:1")
		multi := r.AddIndex(append(others(r), one), "lab/multi:1")
		moved := r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(9, 3000)}}, "lab/multi:1")
		both := "lab.test/lab/multi:1@" + multi.Digest.String()
		refs := []string{both, "lab.test/lab/multi@" + multi.Digest.String(), "lab.test/lab/multi:1"}
		if gone {
			r.Tag("lab/multi:1", v1.Hash{})
			refs = refs[:2]
		}
		var log logged
		o := caseOptions(r)
		o.Log = log.logger()
		locked := mustLock(t, o, refs...)
		for i, l := range locked {
			want := [][2]v1.Hash{{multi.Digest, one.Digest}, {multi.Digest, one.Digest}, {moved.Digest, moved.Digest}}[i]
			if l.Reference != refs[i] || l.Digest != want[0] || l.Manifest != want[1] {
				t.Errorf("%s is locked as %+v, want %v", refs[i], l, want)
			}
		}
		r.Tag("lab/multi:1", others(r)[0].Digest) // and it moves again: nobody asks for tags any more
		r.Forget()
		s := newStore(t)
		if err := mirrorCase(t, o, s, locked); err != nil {
			t.Fatal(err)
		}
		asked := map[string]int{}
		for _, q := range r.Requests() {
			if q.Method == http.MethodHead { // where a tag points now may be told
				continue
			}
			if asked[q.Name]++; q.Kind == regtest.Manifest && !strings.HasPrefix(q.Name, "sha256:") {
				t.Errorf("mirroring asked for tag %s", q.Name)
			}
		}
		for name, n := range asked {
			if n > 1 && name != "" {
				t.Errorf("%s was asked for %d times", name, n)
			}
		}
		verify(t, s, locked)
	}
}

// TestMovedTagIsTold (12): where a pinned name has a tag that points elsewhere by now, or
// nowhere, that is worth a word.
func TestMovedTagIsTold(t *testing.T) {
	r := regtest.New(t)
	pinned := r.AddImage(tiny(r), "lab/multi:1")
	r.AddImage(regtest.Image{Arch: "amd64"}, "lab/multi:1")
	var log logged
	o := caseOptions(r)
	o.Log = log.logger()
	mustLock(t, o, "lab.test/lab/multi:1@"+pinned.Digest.String())
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "lab.test/lab/multi:1") {
		t.Errorf("nothing says that the tag has moved: %q", log.String())
	}
}

// TestSameLayerTwice (14): one digest at several places of a manifest, and in several
// images, is asked for once, however many want it at once.
func TestSameLayerTwice(t *testing.T) {
	for range 5 {
		r := regtest.New(t)
		small, large, none := regtest.Bytes(1, 4096), regtest.Bytes(2, 300_000), []byte{}
		var refs []string
		for i, variant := range []string{"v1", "v2", "v1", "v2", "v1", "v2", "v1", "v2"} {
			name := "lab/dup:" + string(rune('0'+i))
			r.AddImage(regtest.Image{Arch: "amd64", Variant: variant, Layers: [][]byte{small, none, small, none, none, large, small}}, name)
			refs = append(refs, "lab.test/"+name, "other.test/"+name)
		}
		o := caseOptions(r)
		o.Mirrors["other.test"] = r.URL()
		locked := mustLock(t, o, refs...)
		r.Forget()
		s := newStore(t)
		if err := mirrorCase(t, o, s, locked); err != nil {
			t.Fatal(err)
		}
		verify(t, s, locked)
		asked := map[string]int{}
		for _, q := range r.Requests() {
			if asked[q.Method+q.Name]++; asked[q.Method+q.Name] == 2 && strings.HasPrefix(q.Name, "sha256:") {
				t.Errorf("%s was asked for again", q.Name)
			}
		}
	}
}

// TestTwoMirrorsAtOnce (14): two runs on one store.
func TestTwoMirrorsAtOnce(t *testing.T) {
	r := regtest.New(t)
	img := tiny(r, "lab/tiny:1")
	for i := range 20 {
		img.Layers = append(img.Layers, regtest.Bytes(uint64(10+i), 30_000))
	}
	r.AddImage(img, "lab/tiny:1")
	locked := mustLock(t, caseOptions(r), "lab.test/lab/tiny:1")
	dir := t.TempDir()
	d := definition(t, "")
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			s, err := bundle.OpenStore(dir)
			if err != nil {
				t.Error(err)
				return
			}
			if err := Mirror(context.Background(), d, &bundle.Lock{Images: locked}, s, caseOptions(r)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := bundle.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	verify(t, s, locked)
}

// TestSizesThatDiffer (14): one image lies about the size of a layer that it shares with
// another. The other comes whole, whoever is asked first.
func TestSizesThatDiffer(t *testing.T) {
	for _, by := range []int64{-10, 10, 1 << 39} {
		r := regtest.New(t)
		layer := regtest.Bytes(1, 5000)
		honest := r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{layer}}, "lab/honest:1")
		m, err := v1.ParseManifest(strings.NewReader(string(r.Content(honest.Digest))))
		if err != nil {
			t.Fatal(err)
		}
		m.Layers[0].Size += by
		r.AddManifest(types.OCIManifestSchema1, m, "lab/liar:1")
		for _, refs := range [][]string{{"lab.test/lab/liar:1", "lab.test/lab/honest:1"}, {"lab.test/lab/honest:1", "lab.test/lab/liar:1"}} {
			locked := mustLock(t, caseOptions(r), refs...)
			s := newStore(t)
			err := mirrorCase(t, caseOptions(r), s, locked)
			checkClear(t, err, "lab.test/lab/liar:1")
			i := slices.IndexFunc(locked, func(l bundle.LockedImage) bool { return l.Reference == "lab.test/lab/honest:1" })
			if !has(t, s, hashOf(layer)) {
				t.Errorf("by %d, %v: the honest image has not come: %v", by, refs, err)
				continue
			}
			verify(t, s, locked[i:i+1])
		}
	}
}

// TestOddHosts (17): what of a name is a host, who is asked for it, and for what.
func TestOddHosts(t *testing.T) {
	for _, tc := range []struct{ name, canonical, host, path string }{
		{"Registry.Example.COM/team/app:1", "Registry.Example.COM/team/app:1", "registry.example.com", "team/app"},
		{"LOCALHOST:5000/team/app:1", "LOCALHOST:5000/team/app:1", "localhost:5000", "team/app"},
		{"localhost/team/app:1", "localhost/team/app:1", "localhost", "team/app"},
		{"registry:5000/app", "registry:5000/app:latest", "registry:5000", "app"},
		{"registry/app:1", "docker.io/registry/app:1", "index.docker.io", "registry/app"},
		{"[2001:db8::7]:5000/team/app:1", "[2001:db8::7]:5000/team/app:1", "[2001:db8::7]:5000", "team/app"},
		{"[fd00::1]/team/app:1", "[fd00::1]/team/app:1", "[fd00::1]", "team/app"},
		{"reg.example:443/a/b/c/d/e/f/app:1", "reg.example:443/a/b/c/d/e/f/app:1", "reg.example:443", "a/b/c/d/e/f/app"},
		{"127.0.0.1:5055/lab/tiny", "127.0.0.1:5055/lab/tiny:latest", "127.0.0.1:5055", "lab/tiny"},
		{"docker.io/busybox", "docker.io/library/busybox:latest", "index.docker.io", "library/busybox"},
		{"reg.example/app:V1.0_rc.2-x", "reg.example/app:V1.0_rc.2-x", "reg.example", "app"},
		{"xn--rksmrgs-5wao1o.example/app:1", "xn--rksmrgs-5wao1o.example/app:1", "xn--rksmrgs-5wao1o.example", "app"},
	} {
		got, err := bundle.CanonicalReference(tc.name)
		if err != nil || got != tc.canonical {
			t.Errorf("%s is %q, %v, want %q", tc.name, got, err, tc.canonical)
			continue
		}
		// Without a mirror the host itself is asked.
		c, err := newClient(&Options{})
		if err != nil {
			t.Fatal(err)
		}
		repo, err := c.repository(got)
		if err != nil {
			t.Errorf("%s: %v", got, err)
			continue
		}
		u, err := url.Parse(repo.base)
		if err != nil || !strings.EqualFold(u.Host, tc.host) && (u.Host != "registry-1.docker.io" || tc.host != "index.docker.io") || u.Path != "/v2/"+tc.path+"/" {
			t.Errorf("%s is asked for at %s (%v), want host %s and path %s", tc.name, repo.base, err, tc.host, tc.path)
		}
		// With one, only the mirror is; the lock keeps the name.
		r := regtest.New(t)
		_, _, tag, _, err := bundle.SplitReference(got)
		if err != nil {
			t.Fatal(err)
		}
		tiny(r, "below/"+tc.path+":"+tag)
		host, _, _ := strings.Cut(tc.canonical, "/")
		o := caseOptions(r)
		o.Mirrors = map[string]string{host: r.URL() + "/below"}
		if locked, err := lockCase(t, o, got); err != nil || locked[0].Reference != tc.canonical {
			t.Errorf("%s by a mirror: %+v, %v", tc.name, locked, err)
		}
	}
	for _, bad := range []string{"team/App:1", "", ":1", "reg.example/", "reg.example/app:", "reg.example/app@sha256:12", "reg.example:port/app", "[::1/app:1", "a b", "https://reg.example/app:1"} {
		if got, err := bundle.CanonicalReference(bad); err == nil {
			t.Errorf("%q is taken for %s", bad, got)
		}
	}
	if _, err := bundle.CanonicalReference("team/App:1"); err == nil || !strings.Contains(err.Error(), "must be lowercase") {
		t.Errorf("got %v, want it to say what is wrong", err)
	}
}
