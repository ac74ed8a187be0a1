package images

import (
	"cmp"
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle"
	"atoll/test/regtest"
)

// platform gives a descriptor another platform.
func platform(d v1.Descriptor, os, arch, variant string) v1.Descriptor {
	d.Platform = &v1.Platform{OS: os, Architecture: arch, Variant: variant}
	return d
}

// bare gives a descriptor no platform.
func bare(d v1.Descriptor) v1.Descriptor {
	d.Platform = nil
	return d
}

// TestResolveIndexes: which manifest of an index is the one for a platform.
func TestResolveIndexes(t *testing.T) {
	r := regtest.New(t)
	amd := r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(1, 2000)}})
	arm := r.AddImage(regtest.Image{Arch: "arm64", Layers: [][]byte{regtest.Bytes(2, 2000)}})
	v3 := r.AddImage(regtest.Image{Arch: "amd64", Variant: "v3", Layers: [][]byte{regtest.Bytes(3, 2000)}})
	attestation := platform(r.AddImage(regtest.Image{Arch: "unknown"}), "unknown", "unknown", "")
	index := func(of ...v1.Descriptor) v1.Descriptor { return bare(r.AddIndex(of)) }
	v2 := r.AddImage(regtest.Image{Arch: "amd64", Variant: "v2", Layers: [][]byte{regtest.Bytes(4, 2000)}})
	v10 := platform(r.AddImage(regtest.Image{Arch: "amd64", Variant: "v10", Layers: [][]byte{regtest.Bytes(5, 2000)}}), "linux", "amd64", "v10")
	odd := platform(r.AddImage(regtest.Image{Arch: "amd64", Variant: "x", Layers: [][]byte{regtest.Bytes(6, 2000)}}), "linux", "amd64", "x")
	artifact := func(of object) v1.Descriptor {
		return r.AddManifest(types.OCIManifestSchema1, object{
			"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "layers": []v1.Descriptor{},
			"config": r.AddBlob(types.OCIConfigJSON, []byte("{}")),
		}.with(of))
	}
	list := artifact(object{"config": r.AddBlob("application/spdx+json", []byte(`{"a":1}`))})
	typed := artifact(object{"artifactType": "application/spdx+json"})
	about := bare(r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(7, 2000)}}))
	about.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	big := amd
	big.Size += 9
	bigArm := arm
	bigArm.Size += 9
	for name, tc := range map[string]struct {
		of   []v1.Descriptor
		want v1.Descriptor
		says string // the error
	}{
		"variant last":             {of: []v1.Descriptor{v3, amd}, want: amd},
		"lowest variant":           {of: []v1.Descriptor{odd, v10, v3, v2}, want: v2},
		"lowest of two digits":     {of: []v1.Descriptor{odd, v10, v3}, want: v3},
		"variant of no number":     {of: []v1.Descriptor{odd}, want: odd},
		"artifact, no platform":    {of: []v1.Descriptor{list, bare(amd)}, want: amd},
		"artifact by its type":     {of: []v1.Descriptor{typed, bare(amd)}, want: amd},
		"artifact with platform":   {of: []v1.Descriptor{platform(list, "linux", "amd64", ""), amd}, want: amd},
		"artifact, nested image":   {of: []v1.Descriptor{list, index(amd)}, want: amd},
		"artifact beside another":  {of: []v1.Descriptor{arm, list}, says: "its platforms: linux/arm64"},
		"artifact beside a bare":   {of: []v1.Descriptor{bare(arm), typed}, says: "not for linux/amd64"},
		"artifact in an index":     {of: []v1.Descriptor{arm, index(list)}, says: "its platforms: linux/arm64"},
		"artifacts alone":          {of: []v1.Descriptor{typed, list}, want: typed},
		"artifacts of platforms":   {of: []v1.Descriptor{platform(typed, "linux", "arm64", ""), platform(list, "linux", "amd64", "")}, want: list},
		"nested artifact alone":    {of: []v1.Descriptor{index(list)}, want: list},
		"annotated attestation":    {of: []v1.Descriptor{about, bare(amd)}, want: amd},
		"annotated for a platform": {of: []v1.Descriptor{about, arm}, says: "its platforms: linux/arm64"},
		"variant alone":            {of: []v1.Descriptor{arm, v3}, want: v3},
		"platform in the config":   {of: []v1.Descriptor{bare(arm), bare(amd)}, want: amd},
		"second of nested indexes": {of: []v1.Descriptor{index(arm), index(index(amd))}, want: amd},
		"nested index of others":   {of: []v1.Descriptor{platform(index(amd), "linux", "arm64", "")}, says: "not for linux/amd64"},
		"manifest before index":    {of: []v1.Descriptor{index(v3), amd}, want: amd},
		"attestation":              {of: []v1.Descriptor{attestation, amd}, want: amd},
		"attestations alone":       {of: []v1.Descriptor{attestation}, says: "none that it names"},
		"others alone":             {of: []v1.Descriptor{arm, bare(arm), index(arm)}, says: "its platforms: linux/arm64"},
		"none":                     {of: []v1.Descriptor{}, says: "none that it names"},
		"wrong size":               {of: []v1.Descriptor{big}, says: "no container runtime pulls it by that index"},
		"wrong size of another":    {of: []v1.Descriptor{bigArm, amd}, want: amd},
		"wrong size of an index":   {of: []v1.Descriptor{{MediaType: types.OCIImageIndex, Digest: index(amd).Digest, Size: 1}}, says: "no container runtime pulls"},
		"what is no image beside":  {of: []v1.Descriptor{{MediaType: "text/plain", Digest: hashOf([]byte("x")), Size: 1}, amd}, want: amd},
		"missing without platform": {of: []v1.Descriptor{{MediaType: types.OCIManifestSchema1, Digest: hashOf([]byte("x")), Size: 1}}, says: "of its index"},
		"windows, not for us":      {of: []v1.Descriptor{platform(amd, "windows", "amd64", "")}, says: "windows/amd64"},
		"the descriptor is a liar": {of: []v1.Descriptor{platform(arm, "linux", "amd64", "")}, says: "not for linux/amd64"},
		"the liar is not the only": {of: []v1.Descriptor{platform(arm, "linux", "amd64", ""), bare(amd)}, want: amd},
	} {
		t.Run(name, func(t *testing.T) {
			r.AddIndex(tc.of, "lab/x:1")
			locked, err := lockCase(t, caseOptions(r), "lab.test/lab/x:1")
			if tc.says != "" {
				if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "lab.test/lab/x:1") {
					t.Errorf("got %v, want %q", err, tc.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if locked[0].Manifest != tc.want.Digest {
				t.Errorf("got %s, want %s", locked[0].Manifest, tc.want.Digest)
			}
			s := newStore(t)
			if err := mirrorCase(t, caseOptions(r), s, locked); err != nil && !strings.Contains(name, "missing") {
				t.Error(err)
			}
			verify(t, s, locked)
			if has(t, s, attestation.Digest) || has(t, s, about.Digest) {
				t.Error("attestation was fetched")
			}
		})
	}
}

// TestVariantOfARM64: v8 is what each arm64 is.
func TestVariantOfARM64(t *testing.T) {
	var of []v1.Descriptor
	for _, variant := range []string{"v9", "v8", ""} {
		of = append(of, platform(v1.Descriptor{MediaType: types.OCIManifestSchema1}, "linux", "arm64", variant))
	}
	if got := choose(of, "arm64"); got[0].Platform.Variant != "v8" || got[1].Platform.Variant != "" {
		t.Errorf("chose %v", got)
	}
}

// TestMalformedOtherPlatform: what is not wanted may be malformed.
func TestMalformedOtherPlatform(t *testing.T) {
	r := regtest.New(t)
	amd := r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(1, 2000)}})
	old := r.AddManifest(types.OCIManifestSchema1, map[string]any{"schemaVersion": 1})
	r.AddIndex([]v1.Descriptor{platform(old, "linux", "386", ""), amd}, "lab/x:1")
	locked := mustLock(t, caseOptions(r), "lab.test/lab/x:1")
	s := newStore(t)
	if err := mirrorCase(t, caseOptions(r), s, locked); err != nil {
		t.Error(err)
	}
	verify(t, s, locked)
	r.Tag("lab/old:1", old.Digest)
	if _, err := lockCase(t, caseOptions(r), "lab.test/lab/old:1"); err == nil || !strings.Contains(err.Error(), "lab.test/lab/old:1") || !strings.Contains(err.Error(), "schema 1") {
		t.Errorf("got %v, want an error that names the image", err)
	}
}

// TestArtifacts: what is kept like an image and is none comes whole, whatever is in it.
func TestArtifacts(t *testing.T) {
	for name, config := range map[string][]byte{"chart": []byte(`{"name":"x","os":["a"]}`), "no JSON": []byte("\x00asm"), "empty": []byte("{}")} {
		t.Run(name, func(t *testing.T) {
			r := regtest.New(t)
			layer := r.AddBlob("application/vnd.wasm.content.layer.v1+wasm", regtest.Bytes(1, 3000))
			r.AddManifest(types.OCIManifestSchema1, map[string]any{
				"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "artifactType": "application/vnd.lab",
				"config": r.AddBlob("application/vnd.lab.config", config), "layers": []v1.Descriptor{layer},
			}, "lab/art:1")
			locked := mustLock(t, caseOptions(r), "lab.test/lab/art:1")
			s := newStore(t)
			if err := mirrorCase(t, caseOptions(r), s, locked); err != nil {
				t.Fatal(err)
			}
			verify(t, s, locked)
			if !has(t, s, layer.Digest) {
				t.Error("its layer did not come")
			}
		})
	}
}

// TestForeignLayers come from the registry if it has them, or else from their URLs.
func TestForeignLayers(t *testing.T) {
	const zstd = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
	layer := regtest.Bytes(7, 4000)
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/layer":
			w.Write(layer)
		case "/other":
			w.Write(regtest.Bytes(8, 4000))
		default:
			http.NotFound(w, r)
		}
	}))
	defer files.Close()
	for name, tc := range map[string]struct {
		urls []string
		kept bool // by the registry
		says string
		kind types.MediaType // Docker's, if empty
		not  string          // the error must not say
	}{
		"at its URL":      {urls: []string{"ftp://x", "://", "http://169.254.169.254/x", files.URL + "/gone", files.URL + "/layer"}},
		"in the registry": {urls: []string{files.URL + "/gone"}, kept: true},
		"nowhere":         {urls: []string{files.URL + "/gone"}, says: "a layer that is not in the registry but at a URL of its own"},
		"without a URL":   {says: "its manifest has no URL of it", not: "URL of its own"},
		"zstd":            {urls: []string{files.URL + "/layer"}, kind: zstd},
		"zstd, nowhere":   {urls: []string{files.URL + "/gone"}, kind: zstd, says: "at a URL of its own"},
		"any with a URL":  {urls: []string{files.URL + "/layer"}, kind: types.OCILayer},
		"any without":     {kind: types.OCILayer, says: "no longer has", not: "URL"},
		"ftp":             {urls: []string{"ftp://u:s3cret@files.test/layer?pass-1"}, says: "ftp://files.test/layer: this URL of its manifest is not asked: 127.0.0.1", not: "s3cret"},
		"link-local":      {urls: []string{"http://169.254.169.254/x"}, says: "http://169.254.169.254/x: this URL of its manifest is not asked: 127.0.0.1"},
		"no URL":          {urls: []string{"://"}, says: "it is no URL"},
		"another":         {urls: []string{files.URL + "/other"}, says: "corrupt"},
	} {
		t.Run(name, func(t *testing.T) {
			r := regtest.New(t)
			if tc.kept {
				r.AddBlob(types.DockerForeignLayer, layer)
			}
			d := v1.Descriptor{MediaType: cmp.Or(tc.kind, types.DockerForeignLayer), Digest: hashOf(layer), Size: 4000, URLs: tc.urls}
			r.AddManifest(types.DockerManifestSchema2, v1.Manifest{
				SchemaVersion: 2, MediaType: types.DockerManifestSchema2,
				Config: r.AddBlob(types.DockerConfigJSON, []byte(`{"os":"linux","architecture":"amd64"}`)), Layers: []v1.Descriptor{d},
			}, "lab/x:1")
			locked := mustLock(t, caseOptions(r), "lab.test/lab/x:1")
			if locked[0].Size < 4000 {
				t.Errorf("size is %d: the layer does not count", locked[0].Size)
			}
			s := newStore(t)
			err := mirrorCase(t, caseOptions(r), s, locked)
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "lab.test/lab/x:1")) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
			if err != nil && tc.not != "" && strings.Contains(err.Error(), tc.not) {
				t.Errorf("got %v, which says %q", err, tc.not)
			}
			if has(t, s, d.Digest) != (tc.says == "") {
				t.Error("layer is there, or not, and should be the other")
			}
		})
	}
}

// TestMovedTag: the lock's digest is what is fetched; that the tag has moved is told.
func TestMovedTag(t *testing.T) {
	r := regtest.New(t)
	tiny(r, "lab/x:1")
	var log logged
	o := caseOptions(r)
	o.Log = log.logger()
	locked := mustLock(t, o, "lab.test/lab/x:1")
	now := r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(9, 1000)}}, "lab/x:1")
	s := newStore(t)
	if err := mirrorCase(t, o, s, locked); err != nil {
		t.Fatal(err)
	}
	verify(t, s, locked)
	if has(t, s, now.Digest) {
		t.Error("what the tag points at now was fetched")
	}
	if !strings.Contains(log.String(), "tag has moved") || !strings.Contains(log.String(), now.Digest.String()) {
		t.Errorf("nothing tells that the tag has moved:\n%s", &log)
	}
	log = logged{}
	o.Log = log.logger()
	ref := "lab.test/lab/x:1@" + locked[0].Digest.String()
	if pinned := mustLock(t, o, ref); pinned[0].Digest != locked[0].Digest {
		t.Errorf("locked %s", pinned[0].Digest)
	}
	if !strings.Contains(log.String(), "no longer points at the digest") {
		t.Errorf("nothing tells that the tag is another:\n%s", &log)
	}
	// Who does not say, or refuses to, is not pressed.
	r.Break(func(q regtest.Request, a *regtest.Answer) {
		if q.Method == http.MethodHead {
			regtest.Refuse(500)(q, a)
		}
	})
	r.Forget()
	if err := mirrorCase(t, o, newStore(t), locked); err != nil {
		t.Error(err)
	}
	heads := 0
	for _, q := range r.Requests() {
		if q.Method == http.MethodHead {
			heads++
		}
	}
	if heads != 1 {
		t.Errorf("%d requests by HEAD, want 1", heads)
	}
}

func TestBudget(t *testing.T) {
	r := regtest.New(t)
	tiny(r, "lab/tiny:1")
	attestation := platform(r.AddImage(regtest.Image{Arch: "unknown"}), "unknown", "unknown", "")
	r.AddIndex(append(others(r), r.AddImage(regtest.Image{Arch: "amd64"}), attestation), "lab/multi:1")
	o := caseOptions(r)
	o.Mirrors["other.test"] = "http://" + r.Elsewhere
	locked := mustLock(t, o, "lab.test/lab/tiny:1", "lab.test/lab/multi:1", "other.test/lab/tiny:1")
	l := &bundle.Lock{Images: locked, Files: []bundle.LockedFile{
		{Name: "k3s", URL: "https://files.test/k3s", Digest: hashOf([]byte("k3s"))}, {Name: "txt", URL: "/somewhere/txt", Digest: hashOf([]byte("txt"))},
	}}
	s := newStore(t)
	check := func(want []HostBudget) {
		t.Helper()
		r.Forget()
		got, err := Budget(context.Background(), definition(t, ""), l, s, o)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if r.Count() > 0 {
			t.Error("it dialled")
		}
	}
	files := HostBudget{Host: "files.test", Files: 1}
	check([]HostBudget{{Host: r.Host, Images: 2, Manifests: 3, AtLeast: true}, files})
	if _, err := s.PutBytes(context.Background(), r.Content(locked[1].Digest)); err != nil {
		t.Fatal(err)
	}
	check([]HostBudget{{Host: r.Host, Images: 2, Manifests: 3}, files}) // both platforms, and tiny
	if err := mirrorCase(t, o, s, locked); err != nil {
		t.Fatal(err)
	}
	check([]HostBudget{files})
}
