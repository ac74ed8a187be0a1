package images

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle"
	"atoll/bundle/bounds"
	"atoll/test/regtest"
)

// object is JSON that may be odd. A field of nil is not there.
type object map[string]any

func (o object) with(more object) object {
	out := maps.Clone(o)
	for name, value := range more {
		if out[name] = value; value == nil {
			delete(out, name)
		}
	}
	return out
}

// padded makes a manifest so many bytes long.
func padded(t *testing.T, m object, size int) object {
	t.Helper()
	m = m.with(object{"annotations": map[string]string{"pad": ""}})
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return m.with(object{"annotations": map[string]string{"pad": strings.Repeat("x", size-len(data))}})
}

// carried is content that its descriptor alone has.
func carried(t types.MediaType, data []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: t, Digest: hashOf(data), Size: int64(len(data)), Data: data}
}

// TestOddManifests: what is sound comes whole and can be packed, however seldom it is seen.
// What is not is refused by lock and, where a lock has it all the same, by mirror; the error
// names the image.
func TestOddManifests(t *testing.T) {
	r := regtest.New(t)
	config := r.AddBlob(types.OCIConfigJSON, []byte(`{"os":"linux","architecture":"amd64"}`))
	layer := r.AddBlob(types.OCILayer, regtest.Bytes(3, 500))
	zstd := r.AddBlob(types.OCILayerZStd, regtest.Bytes(4, 500))
	lacked := carried(types.OCILayer, regtest.Bytes(5, 700))
	wrong := carried(types.OCILayer, regtest.Bytes(6, 700))
	wrong.Data = wrong.Data[:600]
	sized := func(size int64) v1.Descriptor {
		return v1.Descriptor{MediaType: types.OCILayer, Digest: layer.Digest, Size: size}
	}
	image := object{"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "config": config, "layers": []v1.Descriptor{layer}}
	layers := func(of ...any) object { return image.with(object{"layers": of}) }
	amd := r.AddManifest(types.OCIManifestSchema1, image)
	child := object{"mediaType": amd.MediaType, "digest": amd.Digest, "size": amd.Size, "platform": object{"os": "linux", "architecture": "amd64"}}
	sha512 := child.with(object{"digest": "sha512:" + strings.Repeat("a", 128)})
	arm := object{"os": "linux", "architecture": "arm64"}
	index := func(of ...object) object {
		return object{"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": of}
	}
	unknownSubject := object{"subject": object{"mediaType": "x", "size": 1, "digest": "blake3:aa"}}
	inner := r.AddManifest(types.OCIImageIndex, index(child))
	broken := r.AddManifest(types.OCIManifestSchema1, "no manifest")
	var many []any
	for i := range 3 {
		many = append(many, v1.Descriptor{MediaType: types.OCILayer, Digest: hashOf(regtest.Bytes(uint64(i), 9)), Size: bundle.MaxSize / 2})
	}
	for name, tc := range map[string]struct {
		manifest any
		says     string // why it is refused; nothing if it is sound
	}{
		"manifest without a type":      {manifest: image.with(object{"mediaType": nil})},
		"index without a type":         {manifest: index(child).with(object{"mediaType": nil})},
		"Docker's manifest":            {manifest: image.with(object{"mediaType": types.DockerManifestSchema2})},
		"Docker's list":                {manifest: index(child).with(object{"mediaType": types.DockerManifestList})},
		"neither layers nor manifests": {manifest: image.with(object{"mediaType": nil, "layers": nil}), says: "neither that of an image nor of an index"},
		"no layers":                    {manifest: layers()},
		"zstd":                         {manifest: layers(layer, zstd)},
		"the same layer twice":         {manifest: layers(layer, zstd, layer)},
		"a layer of nothing":           {manifest: layers(layer, v1.Descriptor{MediaType: types.OCILayer, Digest: hashOf(nil)})},
		"as long as may be":            {manifest: padded(t, image, bounds.Manifest)},
		"a byte longer":                {manifest: padded(t, image, bounds.Manifest+1), says: "is larger than 4194304 bytes"},
		"unknown subject":              {manifest: image.with(unknownSubject)},
		"unknown subject of an index":  {manifest: index(child).with(unknownSubject)},
		"config carried along":         {manifest: image.with(object{"config": carried(types.OCIConfigJSON, []byte("{}"))})},
		"layer carried along":          {manifest: layers(layer, lacked)},
		"another layer carried along":  {manifest: layers(layer, wrong), says: "no longer has"},
		"artifact's config carried":    {manifest: image.with(object{"config": carried("application/vnd.oci.empty.v1+json", []byte("{ }")), "artifactType": "a/b"})},
		"schema 1":                     {manifest: object{"schemaVersion": 1, "name": "x", "fsLayers": []string{}}, says: "schema 1"},
		"no config":                    {manifest: image.with(object{"config": nil}), says: "not by a sha256 and its size"},
		"no digest":                    {manifest: layers(object{"mediaType": types.OCILayer, "size": 3}), says: "not by a sha256 and its size"},
		"sha512 layer":                 {manifest: layers(sha512.with(object{"mediaType": types.OCILayer})), says: "not by a sha256 and its size"},
		"negative size":                {manifest: layers(sized(-3)), says: "not by a sha256 and its size"},
		"no size":                      {manifest: layers(sized(0)), says: "has no bytes, which is not their digest"},
		"the largest number":           {manifest: layers(sized(1<<63 - 1)), says: "more than the 1099511627776"},
		"a byte too large":             {manifest: layers(sized(bundle.MaxSize + 1)), says: "more than the 1099511627776"},
		"too large together":           {manifest: layers(many...), says: "more than the 1099511627776"},
		"sha512 for another platform":  {manifest: index(sha512.with(object{"platform": arm}), child)},
		"sha512 index beside":          {manifest: index(sha512.with(object{"mediaType": types.OCIImageIndex, "platform": arm}), child)},
		"index that is gone beside":    {manifest: index(child.with(object{"mediaType": types.OCIImageIndex, "digest": wrong.Digest, "platform": arm}), child)},
		"malformed beside":             {manifest: index(child.with(object{"digest": broken.Digest, "size": broken.Size, "platform": arm}), child)},
		"malformed index beside":       {manifest: index(child.with(object{"mediaType": types.OCIImageIndex, "digest": broken.Digest, "size": broken.Size, "platform": arm}), child)},
		"index in an index":            {manifest: index(object{"mediaType": inner.MediaType, "digest": inner.Digest, "size": inner.Size})},
	} {
		t.Run(name, func(t *testing.T) {
			const ref = "lab.test/lab/x:1"
			d := r.AddManifest(types.OCIManifestSchema1, tc.manifest, "lab/x:1")
			r.Forget()
			locked, err := lockCase(t, caseOptions(r), ref)
			if tc.says != "" && !strings.Contains(tc.says, "no longer") {
				checkSays(t, err, ref, tc.says)
				locked = []bundle.LockedImage{{Reference: ref, Digest: d.Digest, Manifest: d.Digest, Size: 1, Tier: bundle.TierRequired}}
			} else if err != nil {
				t.Fatal(err)
			}
			s := newStore(t)
			err = mirrorCase(t, caseOptions(r), s, locked)
			if tc.says != "" {
				checkSays(t, err, ref, tc.says)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			verify(t, s, locked)
			for _, known := range []v1.Hash{lacked.Digest, hashOf(nil), hashOf([]byte("{}")), hashOf([]byte("{ }"))} {
				if slices.Contains(asked(r, regtest.Blob, http.MethodGet), known.String()) {
					t.Errorf("%s was asked for, though its descriptor tells it", known)
				}
			}
		})
	}
}

func checkSays(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q", err, part)
		}
	}
}

// TestSHA512Told: another platform that is left out for its digest is told of, with the image.
func TestSHA512Told(t *testing.T) {
	r := regtest.New(t)
	amd := r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(1, 2000)}})
	arm := platform(amd, "linux", "arm64", "")
	arm.Digest = v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("a", 128)}
	r.AddIndex([]v1.Descriptor{arm, amd}, "lab/x:1")
	var log logged
	o := caseOptions(r)
	o.Log = log.logger()
	if err := mirrorCase(t, o, newStore(t), mustLock(t, o, "lab.test/lab/x:1")); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"image lab.test/lab/x:1: sha512:aaa", "is no sha256"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("log lacks %q:\n%s", part, &log)
		}
	}
}

// TestSHA512Wanted: there is a clear error, and no request for what cannot be kept.
func TestSHA512Wanted(t *testing.T) {
	r := regtest.New(t)
	r.AddManifest(types.OCIImageIndex, object{"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": []object{{
		"mediaType": types.OCIManifestSchema1, "digest": "sha512:" + strings.Repeat("a", 128), "size": 9,
		"platform": object{"os": "linux", "architecture": "amd64"},
	}}}, "lab/x:1")
	_, err := lockCase(t, caseOptions(r), "lab.test/lab/x:1")
	checkSays(t, err, "lab.test/lab/x:1", "is no sha256")
	if n := len(asked(r, regtest.Manifest, http.MethodGet)); n != 1 {
		t.Errorf("%d requests for manifests, want that of the tag", n)
	}
}

// TestManifestCarriedAlong: an index that has its manifests' bytes needs no registry for them.
func TestManifestCarriedAlong(t *testing.T) {
	r := regtest.New(t)
	amd := r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(1, 2000)}})
	arm := others(r)[0]
	amd.Data, arm.Data = r.Content(amd.Digest), r.Content(arm.Digest)
	r.AddIndex([]v1.Descriptor{amd, arm}, "lab/x:1")
	r.Break(regtest.Of(regtest.Refuse(404), amd.Digest.String(), arm.Digest.String()))
	locked := mustLock(t, caseOptions(r), "lab.test/lab/x:1")
	s := newStore(t)
	if err := mirrorCase(t, caseOptions(r), s, locked); err != nil {
		t.Fatal(err)
	}
	verify(t, s, locked)
	if !has(t, s, arm.Digest) {
		t.Error("the other platform's manifest is not kept")
	}
}

// TestAccept: a registry may refuse who does not say that the manifest's type will do.
func TestAccept(t *testing.T) {
	for _, want := range []types.MediaType{types.OCIManifestSchema1, types.OCIImageIndex, types.DockerManifestSchema2, types.DockerManifestList} {
		t.Run(string(want), func(t *testing.T) {
			r := regtest.New(t)
			amd := r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(1, 2000)}}, "lab/x:1")
			var m object
			if err := json.Unmarshal(r.Content(amd.Digest), &m); err != nil {
				t.Fatal(err)
			}
			if want.IsIndex() {
				m = object{"schemaVersion": 2, "manifests": []v1.Descriptor{amd}}
			}
			d := r.AddManifest(want, m.with(object{"mediaType": want}), "lab/x:1")
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				last := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
				if types := strings.Split(req.Header.Get("Accept"), ", "); (last == "1" || last == d.Digest.String()) && !slices.Contains(types, string(want)) {
					http.Error(w, "no such manifest", http.StatusNotFound)
					return
				}
				r.ServeHTTP(w, req)
			}))
			defer front.Close()
			o := caseOptions(r)
			o.Mirrors["lab.test"] = front.URL
			locked := mustLock(t, o, "lab.test/lab/x:1")
			if err := mirrorCase(t, o, newStore(t), locked); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNoRoomForManifests: a disk that takes none is told of once, with an image, and nobody
// is asked for more; nor for other platforms of an image that was read before.
func TestNoRoomForManifests(t *testing.T) {
	r := regtest.New(t)
	var refs []string
	for _, name := range []string{"a", "b", "c", "d"} {
		amd := r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{[]byte(name)}})
		r.AddIndex([]v1.Descriptor{amd, others(r)[0]}, "lab/"+name+":1")
		refs = append(refs, "lab.test/lab/"+name+":1")
	}
	o := caseOptions(r)
	o.Jobs = 1
	locked := mustLock(t, o, refs...)
	dir := t.TempDir()
	s, err := bundle.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []v1.Hash{locked[0].Digest, locked[0].Manifest} {
		if _, err := s.PutBytes(t.Context(), r.Content(h)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(dir + "/tmp"); err != nil { // as good as full
		t.Fatal(err)
	}
	c, err := newClient(o)
	if err != nil {
		t.Fatal(err)
	}
	c.store = s
	var wanted []Wanted
	for _, ref := range refs {
		wanted = append(wanted, Wanted{Reference: ref})
	}
	for name, do := range map[string]func() error{
		"mirror": func() error {
			m := &mirror{client: c, downloads: map[v1.Hash][]*download{}}
			return m.addImages(t.Context(), locked)
		},
		"lock": func() error {
			_, err := c.resolveImages(t.Context(), wanted, "amd64")
			return err
		},
	} {
		r.Forget()
		err := do()
		if asLocal(err) == nil || strings.Count(err.Error(), "lab.test/") != 1 {
			t.Errorf("%s: got %v, want the disk's error with one image", name, err)
		}
		if n := len(asked(r, regtest.Manifest, http.MethodGet)); n != 1 {
			t.Errorf("%s: %d requests for manifests, want 1", name, n)
		}
	}
}
