package firstboot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atoll/bundle"
	"atoll/bundle/bundletest"
	"atoll/bundle/signature"
)

// The node opens the bundle that it was made with and no other, and says so in the status.
func TestOpen(t *testing.T) {
	key, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	f := bundletest.New(t)
	f.Lab(t)
	plain := f.Pack(t)
	signed := f.Pack(t)
	if err := bundle.Sign(t.Context(), signed, &bundle.PackOptions{Key: key}); err != nil {
		t.Fatal(err)
	}
	f.AddImage(t, "docker.io/library/more:1", bundletest.Image(t, bundletest.Platform, "more"))
	other := f.Pack(t)
	if err := bundle.Sign(t.Context(), other, &bundle.PackOptions{Key: key}); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(plain)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	tampered := filepath.Join(t.TempDir(), "tampered")
	data, err := os.ReadFile(signed)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tampered, []byte(strings.Replace(string(data), "library/busybox:1.28", "library/busybox:1.29", -1)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, path string
		key        *signature.Key
		want       string
	}{
		{"unsigned", plain, nil, ""},
		{"signed, nobody asks", signed, nil, ""},
		{"signed", signed, key, ""},
		{"signature missing", plain, key, "it has no signature"},
		{"signed by a stranger", signed, stranger, "not signed with the key"},
		{"another one, signed by the same", other, key, "want " + b.Digest().String()},
		{"another one", other, nil, "want " + b.Digest().String()},
		{"renamed in the index", tampered, nil, "corrupt"},
		{"none", filepath.Join(t.TempDir(), "none"), nil, "no such file"},
	} {
		root, o := newRoot(t), testOptions(t)
		put(t, root, appliance, `{"name": "lab", "bundle": "`+b.Digest().String()+`"}`)
		if tc.key != nil {
			data, err := tc.key.Public().Encode()
			if err != nil {
				t.Fatal(err)
			}
			put(t, root, publicKey, string(data))
		}
		got, err := Open(tc.path, root, "prepare", o)
		if err == nil {
			got.Close()
		}
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if err == nil {
			continue
		}
		s, err := ReadStatus(o.Status)
		if err != nil || s.State != bundle.StateFailed || s.Appliance != "lab" || !strings.Contains(s.Error, tc.want) {
			t.Errorf("%s: status is %+v, %v", tc.name, s, err)
		}
	}
	root := newRoot(t)
	put(t, root, publicKey, "nonsense")
	if _, err := Open(signed, root, "prepare", testOptions(t)); err == nil || !strings.Contains(err.Error(), publicKey) {
		t.Errorf("nonsense in place of a key: %v", err)
	}
}
