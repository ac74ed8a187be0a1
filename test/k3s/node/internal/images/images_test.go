package images

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestImportDir(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte("packed")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	put("b.tar", []byte("plain"))
	put("a.tar.gz", packed.Bytes())
	put("c.tgz", []byte("broken"))
	put("list.txt", []byte("docker.io/x"))
	put(".hidden.tar", []byte("hidden"))
	if err := os.Mkdir(filepath.Join(dir, "sub.tar"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func() (got []string) {
		t.Helper()
		err := importDir(context.Background(), dir, slog.New(slog.DiscardHandler), func(_ context.Context, r io.Reader) (int, error) {
			data, err := io.ReadAll(r)
			got = append(got, string(data))
			if string(data) == "broken" {
				return 0, errors.New("broken")
			}
			return 1, err
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	all := []string{"packed", "plain", "broken"}
	for range 2 { // without a cache every start imports again
		if got := run(); !reflect.DeepEqual(got, all) {
			t.Errorf("got %q, want %q", got, all)
		}
	}
	put(cacheName, nil)
	if got := run(); !reflect.DeepEqual(got, all) {
		t.Errorf("with an empty cache: got %q, want %q", got, all)
	}
	put("b.tar", []byte("plain, changed"))
	if got, want := run(), []string{"plain, changed", "broken"}; !reflect.DeepEqual(got, want) {
		t.Errorf("with a cache: got %q, want %q", got, want)
	}
}
