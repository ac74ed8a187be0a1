package bundle_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
	"atoll/bundle/bundletest"
	"atoll/bundle/signature"
)

func newKey(t testing.TB) *signature.Key {
	t.Helper()
	k, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// open opens a bundle of these bytes, and says which it is.
func open(t testing.TB, data []byte, trust bundle.Trust) (v1.Hash, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bundle")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.OpenTrusted(path, trust)
	if err != nil {
		return v1.Hash{}, err
	}
	defer b.Close()
	return b.Digest(), b.Check()
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A bundle has one digest, signed or not. Signing while packing and afterwards are the same.
func TestSign(t *testing.T) {
	key := newKey(t)
	f := bundletest.New(t)
	f.Lab(t)
	plain := f.Pack(t)
	digest, err := open(t, read(t, plain), bundle.Trust{})
	if err != nil {
		t.Fatal(err)
	}
	packed := filepath.Join(t.TempDir(), "signed")
	if err := bundle.Pack(t.Context(), packed, f.Store, f.Lock, f.Artifacts(t), &bundle.PackOptions{Key: key}); err != nil {
		t.Fatal(err)
	}
	if got, err := open(t, read(t, packed), bundle.Trust{Digest: digest, Key: key.Public()}); err != nil || got != digest {
		t.Errorf("signed: %s, %v, want %s", got, err, digest)
	}
	for range 2 { // a bundle that is signed already has one signature afterwards
		if err := bundle.Sign(t.Context(), plain, &bundle.PackOptions{Key: key}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(t, plain), read(t, packed)) {
			t.Error("signed afterwards is another bundle than signed while it was packed")
		}
	}
	if err := verify(t, plain, read(t, plain)); err != nil {
		t.Error(err)
	}
	next := newKey(t)
	if err := bundle.Sign(t.Context(), plain, &bundle.PackOptions{Key: next}); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, read(t, plain), bundle.Trust{Digest: digest, Key: next.Public()}); err != nil {
		t.Errorf("signed with another key: %v", err)
	}
	if _, err := open(t, read(t, plain), bundle.Trust{Key: key.Public()}); !errors.Is(err, bundle.ErrUntrusted) {
		t.Errorf("the key before: %v", err)
	}
}

// What is not whole is not signed.
func TestSignDamaged(t *testing.T) {
	path, data := small(t)
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, f := range append(b.Files(), bundle.File{Digest: b.Images()[0].Manifest}) {
		offset, _, _ := b.Section(f.Digest)
		bad := bytes.Clone(data)
		bad[offset] ^= 1
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		var corrupt *bundle.CorruptError
		if err := bundle.Sign(t.Context(), path, &bundle.PackOptions{Key: newKey(t)}); !errors.As(err, &corrupt) {
			t.Errorf("signed with a damaged %s: %v", f.Name, err)
		}
		if !bytes.Equal(read(t, path), bad) {
			t.Error("what cannot be signed was written")
		}
	}
}

// A bundle that is changed is not opened by who knows its digest or key.
func TestTrust(t *testing.T) {
	key := newKey(t)
	path, unsigned := small(t)
	if err := bundle.Sign(t.Context(), path, &bundle.PackOptions{Key: key}); err != nil {
		t.Fatal(err)
	}
	data := read(t, path)
	digest, err := open(t, data, bundle.Trust{Key: key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	other := bundletest.New(t)
	other.AddImage(t, "docker.io/library/other:1", bundletest.Image(t, bundletest.Platform, "other"))
	otherPath := other.Pack(t)
	otherData := read(t, otherPath)
	if err := bundle.Sign(t.Context(), otherPath, &bundle.PackOptions{Key: newKey(t)}); err != nil {
		t.Fatal(err)
	}
	signatureOf := func(m *v1.IndexManifest) *v1.Descriptor {
		i := slices.IndexFunc(m.Manifests, func(d v1.Descriptor) bool { return d.Annotations["kind"] == "dev.cosignproject.cosign/sigs" })
		return &m.Manifests[i]
	}
	drop := func(top, root *v1.IndexManifest) { // an image that nobody will miss
		top.Manifests, root.Manifests = top.Manifests[1:], root.Manifests[1:]
	}
	for name, test := range map[string]struct {
		data        []byte
		byKey, byID bool // whether each of them finds out
	}{
		"unchanged":                     {data, false, false},
		"unsigned":                      {unsigned, true, false},
		"another bundle":                {otherData, true, true},
		"another's signed":              {read(t, otherPath), true, true},
		"image left out":                {change(t, path, drop), true, true},
		"signature removed":             {change(t, path, func(top, _ *v1.IndexManifest) { top.Manifests = top.Manifests[:7] }), true, false},
		"signature is what it is not":   {change(t, path, func(top, _ *v1.IndexManifest) { signatureOf(top).Digest = top.Manifests[0].Digest }), true, false},
		"signature is nowhere":          {change(t, path, func(top, _ *v1.IndexManifest) { signatureOf(top).Digest.Hex = strings.Repeat("a", 64) }), true, false},
		"signature of another one":      {change(t, path, func(top, root *v1.IndexManifest) { root.Annotations = map[string]string{"a": "b"} }), true, true},
		"signature first of seventeen":  {change(t, path, func(top, _ *v1.IndexManifest) { many(top, signatureOf(top), false) }), false, false},
		"signature last of seventeen":   {change(t, path, func(top, _ *v1.IndexManifest) { many(top, signatureOf(top), true) }), true, false},
		"index.json lists another name": {change(t, path, func(top, _ *v1.IndexManifest) { top.Manifests[0].Annotations = top.Manifests[1].Annotations }), true, true},
	} {
		if _, err := open(t, test.data, bundle.Trust{Key: key.Public()}); (err != nil) != test.byKey {
			t.Errorf("%s, by key: %v", name, err)
		}
		if _, err := open(t, test.data, bundle.Trust{Digest: digest}); (err != nil) != test.byID {
			t.Errorf("%s, by digest: %v", name, err)
		}
	}
	_, err = open(t, otherData, bundle.Trust{Digest: digest})
	var corrupt *bundle.CorruptError
	if !errors.As(err, &corrupt) || corrupt.Want != digest || corrupt.Got == digest {
		t.Errorf("another bundle: %v", err)
	}
	if _, err := open(t, unsigned, bundle.Trust{Key: key.Public()}); !errors.Is(err, bundle.ErrUntrusted) || !strings.Contains(err.Error(), "no signature") {
		t.Errorf("unsigned: %v", err)
	}
}

// many puts sixteen more entries for a signature into index.json, before or after the real one.
func many(top *v1.IndexManifest, real *v1.Descriptor, before bool) {
	wrong := *real
	wrong.Digest.Hex = strings.Repeat("a", 64)
	d := *real
	list := slices.Repeat([]v1.Descriptor{wrong}, 16)
	top.Manifests = slices.DeleteFunc(top.Manifests, func(e v1.Descriptor) bool { return e.Digest == d.Digest })
	if before {
		top.Manifests = append(append(top.Manifests, list...), d)
	} else {
		top.Manifests = append(append(top.Manifests, d), list...)
	}
}

// Any byte of the index or its signature that is flipped is found by who knows the key.
func TestTrustFindsFlippedBytes(t *testing.T) {
	key := newKey(t)
	path, _ := small(t)
	if err := bundle.Sign(t.Context(), path, &bundle.PackOptions{Key: key}); err != nil {
		t.Fatal(err)
	}
	data := read(t, path)
	b, err := bundle.OpenTrusted(path, bundle.Trust{Key: key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	offset, size, _ := b.Section(b.Digest())
	for i := offset; i < offset+size; i += 7 {
		bad := bytes.Clone(data)
		bad[i] ^= 0x11
		if _, err := open(t, bad, bundle.Trust{Key: key.Public()}); err == nil {
			t.Fatalf("flipped byte %d of the root index went unseen", i-offset)
		}
	}
}

// The signature in the layout is what openssl takes for one, and where cosign looks for it.
func TestSignatureForOthers(t *testing.T) {
	key := newKey(t)
	path, _ := small(t)
	if err := bundle.Sign(t.Context(), path, &bundle.PackOptions{Key: key}); err != nil {
		t.Fatal(err)
	}
	_, data := members(t, path)
	var top v1.IndexManifest
	if err := json.Unmarshal(data["index.json"], &top); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]v1.Hash{}
	for _, d := range top.Manifests {
		kinds[d.Annotations["kind"]] = d.Digest
	}
	var m v1.Manifest
	if err := json.Unmarshal(data["blobs/sha256/"+kinds["dev.cosignproject.cosign/sigs"].Hex], &m); err != nil {
		t.Fatal(err)
	}
	layer := m.Layers[0]
	payload := data["blobs/sha256/"+layer.Digest.Hex]
	if !bytes.Contains(payload, []byte(`"docker-manifest-digest":"`+kinds["dev.cosignproject.cosign/imageIndex"].String()+`"`)) {
		t.Errorf("signed is %s", payload)
	}
	raw, err := base64.StdEncoding.DecodeString(layer.Annotations["dev.cosignproject.cosign/signature"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	public, err := key.Public().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"pub": public, "sig": raw, "payload": payload} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("openssl", "dgst", "-sha256", "-verify", "pub", "-signature", "sig", "payload")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("openssl: %v: %s", err, out)
	}
}
