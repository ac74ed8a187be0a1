package images

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
		{"default by source", "", "https://github.com/k3s-io/k3s/releases/download/v1.34.4+k3s1/k3s", map[string]string{"k3s": dir}},
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

// strict is a file server that takes a plain plus in a path for a space, as S3 does, and
// one that is escaped twice for what it says.
type strict struct {
	http.Handler

	mu       sync.Mutex
	requests []string // as they stand on the request line
}

func newStrict(t *testing.T, dir string) (*strict, string) {
	t.Helper()
	s := &strict{Handler: http.FileServer(http.Dir(dir))}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return s, srv.URL
}

func (s *strict) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.RequestURI)
	s.mu.Unlock()
	raw, query, _ := strings.Cut(r.RequestURI, "?")
	if to, ok := strings.CutPrefix(raw, "/redirect"); ok {
		w.Header().Set("Location", to+"?signature=a%2Bb")
		w.WriteHeader(http.StatusFound)
		return
	}
	if query != "" && query != "signature=a%2Bb" {
		http.Error(w, "signature is wrong", http.StatusForbidden)
		return
	}
	plain, err := url.QueryUnescape(raw)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.URL.Path, r.URL.RawPath = plain, ""
	s.Handler.ServeHTTP(w, r)
}

// TestPlusInVersion is kubernetes/kops#2098: however a release is named, a server is asked
// with %2B, once, and the lock has the version as it is.
func TestPlusInVersion(t *testing.T) {
	const version = "v1.34.4+k3s1"
	root := t.TempDir()
	dir := filepath.Join(root, "rel", version)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(release(t), dir); err != nil {
		t.Fatal(err)
	}
	server, at := newStrict(t, root)
	l := newLab(t)
	l.push(t, randomImage(t, "amd64", 1000, 1), "ghcr.io/a/b:1")
	image := l.lockImages(t, "ghcr.io/a/b:1").Images
	for _, tc := range []struct {
		name, release, lock string
		source              string
	}{
		{"plain", at + "/rel/v1.34.4+k3s1", at + "/rel/v1.34.4+k3s1", ""},
		{"escaped", at + "/rel/v1.34.4%2Bk3s1", at + "/rel/v1.34.4+k3s1", ""},
		{"escaped in small letters", at + "/rel/v1.34.4%2bk3s1", at + "/rel/v1.34.4+k3s1", ""},
		{"plain, slash", at + "/rel/v1.34.4+k3s1/", at + "/rel/v1.34.4+k3s1", ""},
		{"escaped, slash", at + "/rel/v1.34.4%2Bk3s1/", at + "/rel/v1.34.4+k3s1", ""},
		{"all releases", at + "/rel", at + "/rel/v1.34.4+k3s1", ""},
		{"folder of all releases", filepath.Dir(dir), dir, ""},
		{"redirect", at + "/redirect/rel/v1.34.4%2Bk3s1", at + "/redirect/rel/v1.34.4+k3s1", ""},
		{"folder", dir, dir, ""},
		{"folder, slash", dir + "/", dir, ""},
		{"file URL", "file://" + dir, "file://" + dir, ""},
		{"file URL, escaped", "file://" + strings.ReplaceAll(dir, "+", "%2B"), "file://" + dir, ""},
		{"source", "", k3sDownloads + version, dir},
		{"source, slash", "", k3sDownloads + version, dir + "/"},
		{"source before URL", at + "/none", at + "/none", dir},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server.requests = nil
			d := definition(t, "")
			d.K3s.Release = tc.release
			o := l.options() // sends the registries to a path of the lab
			if tc.source != "" {
				o.Sources = map[string]string{"k3s": tc.source}
			}
			c, err := newClient(o)
			if err != nil {
				t.Fatal(err)
			}
			files, err := c.resolveK3s(context.Background(), d)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if f.URL != tc.lock+"/"+filepath.Base(f.URL) {
					t.Errorf("locked as %s, want it in %s", f.URL, tc.lock)
				}
			}
			written, err := (&bundle.Lock{Definition: hashOf(nil), Manifests: hashOf(nil), Platform: "linux/amd64", Epoch: time.Unix(1<<30, 0), Files: files}).Encode()
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(written), version); n != len(files) && tc.lock != at+"/none" {
				t.Errorf("the lock has the version %d times:\n%s", n, written)
			}
			s := newStore(t)
			if err := Mirror(context.Background(), d, &bundle.Lock{Images: image, Files: files}, s, o); err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if !has(t, s, f.Digest) {
					t.Errorf("%s is not in the store", f.Name)
				}
			}
			if asked := strings.HasPrefix(tc.release, "http") && tc.source == ""; asked != (len(server.requests) > 0) {
				t.Errorf("server was asked %q", server.requests)
			}
			for _, r := range server.requests {
				if path, _, _ := strings.Cut(r, "?"); strings.Contains(path, "v1.") && strings.Count(path, "%2B") != 1 || strings.ContainsAny(path, "+") || strings.Contains(path, "%25") {
					t.Errorf("asked for %s, want one %%2B", r)
				}
			}
		})
	}
}

// TestPlusOfGitHub has the place that is asked when a definition names none, and what a
// lock of an older version has.
func TestPlusOfGitHub(t *testing.T) {
	d := definition(t, "")
	c, err := newClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	const want = "https://github.com/k3s-io/k3s/releases/download/v1.34.4%2Bk3s1/k3s"
	for _, locked := range []string{k3sBase(d) + "/k3s", want} {
		if got := c.fileSource(d, locked).url; got != want {
			t.Errorf("%s is asked as %s", locked, got)
		}
	}
}

// TestEscapePlus changes nothing but the pluses of a path.
func TestEscapePlus(t *testing.T) {
	var got []string
	want := []string{
		"http://h.test/a%2Bb/c%2Bd?x=1+2#y", "http://u+v:p+q@h.test:1/%2B", "http://h.test", "http://h.test/%252B%2F%20", "http://[::1/+",
	}
	for _, in := range []string{
		"http://h.test/a+b/c%2Bd?x=1+2#y", "http://u+v:p+q@h.test:1/+", "http://h.test", "http://h.test/%252B%2F%20", "http://[::1/+",
	} {
		got = append(got, escapePlus(in))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
