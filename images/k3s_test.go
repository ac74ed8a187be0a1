package images

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atoll/bundle"
)

func TestK3sRelease(t *testing.T) {
	dir := release(t)
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer srv.Close()
	for _, tc := range []struct {
		name, release, url string
		sources            map[string]string
	}{
		{"folder", dir, dir + "/k3s", nil},
		{"file URL", "file://" + dir, "file://" + dir + "/k3s", nil},
		{"http", srv.URL + "/", srv.URL + "/k3s", nil},
		{"default by source", "", "https://github.com/k3s-io/k3s/releases/download/v1.34.4%2Bk3s1/k3s", map[string]string{"k3s": dir}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := definition(t, "")
			d.K3s.Release = tc.release
			o := &Options{Sources: tc.sources}
			c, err := newClient(o)
			if err != nil {
				t.Fatal(err)
			}
			files, err := c.resolveK3s(context.Background(), d)
			if err != nil {
				t.Fatal(err)
			}
			if len(files) != 3 || files[0].URL != tc.url {
				t.Errorf("got %v, want three, the first from %s", files, tc.url)
			}
			s := newStore(t)
			if err := Mirror(context.Background(), d, &bundle.Lock{Files: files}, s, o); err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				want := "content of " + f.Name
				if data, err := os.ReadFile(s.Path(f.Digest)); err != nil || string(data) != want || f.Size != int64(len(want)) {
					t.Errorf("%s is %q (%d bytes), %v", f.Name, data, f.Size, err)
				}
			}
		})
	}
}

func TestK3sReleaseFaults(t *testing.T) {
	dir := release(t)
	d := definition(t, "")
	d.K3s.Release = dir
	c, err := newClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	files, err := c.resolveK3s(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	write := func(data string) {
		if err := os.WriteFile(filepath.Join(dir, "k3s"), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, data := range []string{"Content of k3s", "content", "content of k3s and more"} {
		write(data)
		var corrupt *bundle.CorruptError
		s := newStore(t)
		if err := Mirror(context.Background(), d, &bundle.Lock{Files: files}, s, nil); !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "file k3s from "+dir) {
			t.Errorf("k3s is %q: got %v, want it corrupt", data, err)
		}
		if has(t, s, files[0].Digest) {
			t.Errorf("k3s is %q: it is in the store", data)
		}
	}
	if err := os.Remove(filepath.Join(dir, "k3s")); err != nil {
		t.Fatal(err)
	}
	var gone *GoneError
	if err := Mirror(context.Background(), d, &bundle.Lock{Files: files}, newStore(t), nil); !errors.As(err, &gone) {
		t.Errorf("k3s is absent: got %v", err)
	}
	if _, err := c.resolveK3s(context.Background(), d); err == nil || !strings.Contains(err.Error(), "--source k3s=") {
		t.Errorf("locking without k3s: got %v", err)
	}
}
