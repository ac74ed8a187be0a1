package source

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestCostlyTrees has archives of some hundred kilobytes, packed, that cost minutes: each
// link is followed through folders with long names, each path is a chain of folders.
func TestCostlyTrees(t *testing.T) {
	deep := strings.Repeat("d/", 120) + strings.Repeat("x", 250)
	for want, header := range map[string]func(i int) *tar.Header{
		"symbolic links": func(i int) *tar.Header {
			return &tar.Header{Name: fmt.Sprintf("l%d", i), Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("./", 120) + "f"}
		},
		"its paths have more than": func(i int) *tar.Header {
			return &tar.Header{Name: fmt.Sprintf("%s/f%d", deep, i), Typeflag: tar.TypeReg, Mode: 0o644}
		},
	} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for i := range 50_000 {
			h := header(i)
			h.Format = tar.FormatPAX
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadArchive(&buf, ""); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
