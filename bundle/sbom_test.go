package bundle_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"atoll/bundle"
	"atoll/bundle/bundletest"
)

func TestSBOM(t *testing.T) {
	for name, test := range map[string]struct {
		files []string // contents
		want  string   // of the document or the error
		is    error
	}{
		"one":    {[]string{`{"spdxVersion":"SPDX-2.3"}`}, `{"spdxVersion":"SPDX-2.3"}`, nil},
		"none":   {nil, "no such file in an artifact application/spdx+json", bundle.ErrIncomplete},
		"two":    {[]string{"{}", "[]"}, "no such file in an artifact application/spdx+json", bundle.ErrIncomplete},
		"prose":  {[]string{"see LICENSE"}, "x0 of ", nil},
		"escape": {[]string{"{\"a\":\"\x1b[31m\"}"}, "is no JSON", nil},
	} {
		f := bundletest.New(t)
		artifacts := f.Artifacts(t)
		a := bundle.Artifact{Type: bundle.ArtifactSBOM}
		for i, content := range test.files {
			a.Files = append(a.Files, bundle.File{Name: "x" + string(rune('0'+i)), Digest: f.Put(t, []byte(content)), Size: int64(len(content))})
		}
		if len(a.Files) > 0 {
			artifacts = append(artifacts, a)
		}
		path := filepath.Join(t.TempDir(), "b.tar")
		if err := bundle.Pack(t.Context(), path, f.Store, f.Lock, artifacts, nil); err != nil {
			t.Fatal(err)
		}
		b, err := bundle.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		data, err := b.SBOM()
		b.Close()
		got := string(data)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, test.want) || test.is != nil && !errors.Is(err, test.is) || (name == "one") != (err == nil) {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
}
