package images

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle"
	"atoll/bundle/bundletest"
	"atoll/test/regtest"
)

// TestAnswersWithoutHeaders (02): answers that lack, or lie in, whatever header HTTP lets
// be left out. The lock is about the bytes that came.
func TestAnswersWithoutHeaders(t *testing.T) {
	header := func(name, value string) regtest.Fault {
		return func(_ regtest.Request, a *regtest.Answer) {
			if a.Header.Set(name, value); value == "" {
				a.Header[name] = nil
			}
		}
	}
	head := func(f regtest.Fault) regtest.Fault {
		return func(q regtest.Request, a *regtest.Answer) {
			if q.Method == http.MethodHead {
				f(q, a)
			}
		}
	}
	for _, tc := range []struct {
		name  string
		fault regtest.Fault
	}{
		{"no digest", header("Docker-Content-Digest", "")},
		{"no digest, chunked", regtest.All(header("Docker-Content-Digest", ""), regtest.Chunked)},
		{"another digest", regtest.Digest},
		{"a digest that is none", header("Docker-Content-Digest", "sha256:short")},
		{"HEAD is refused", head(regtest.Refuse(405))},
		{"HEAD is not found", head(regtest.Refuse(404))},
		{"HEAD says length 0", head(regtest.Empty)},
		{"HEAD is cut", head(regtest.Drop)},
		{"no type", header("Content-Type", "")},
		{"type with parameters", header("Content-Type", "application/json; charset=utf-8")},
		{"another type", header("Content-Type", "text/plain")},
		{"says it takes no ranges", header("Accept-Ranges", "none")},
		{"ETag and dates of nonsense", regtest.All(header("Etag", `W/"x`), header("Last-Modified", "never"))},
		{"all of it chunked", regtest.Chunked},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := regtest.New(t)
			img := regtest.Image{Arch: "amd64", Layers: [][]byte{{}, regtest.Bytes(1, 100_000)}} // an empty layer too
			one := r.AddImage(img, "lab/tiny:1")
			multi := r.AddIndex(append(others(r), one), "lab/multi:1")
			r.Break(regtest.On(tc.fault, regtest.Manifest, regtest.Blob))
			locked := mustLock(t, caseOptions(r), "lab.test/lab/tiny:1", "lab.test/lab/multi:1")
			size := int64(len(r.Content(one.Digest))) + 100_000
			for i, want := range []v1.Hash{one.Digest, multi.Digest} {
				if l := locked[i]; l.Digest != want || l.Manifest != one.Digest || l.Size < size || l.Size > size+1000 {
					t.Errorf("locked %+v, want digest %s and a size of about %d", l, want, size)
				}
			}
			s := newStore(t)
			if err := mirrorCase(t, caseOptions(r), s, locked); err != nil {
				t.Fatal(err)
			}
			verify(t, s, locked)
		})
	}
}

// TestEmptySuccess (30): a registry that is gone, goes, or says that all is well while it
// sends nothing of use. What lacks is named, the rest is kept, and no bundle is made.
func TestEmptySuccess(t *testing.T) {
	type world struct {
		r      *regtest.Registry
		o      *Options
		second v1.Hash // image 2's manifest
	}
	for _, tc := range []struct {
		name   string
		break_ func(t *testing.T, w *world)
		named  []string // images that the error is about
	}{
		{"nobody listens", func(t *testing.T, w *world) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			w.o.Mirrors["lab.test"] = "http://" + l.Addr().String()
			l.Close()
		}, []string{"1", "2", "3"}},
		{"all refused", func(_ *testing.T, w *world) { w.r.Break(regtest.Drop) }, []string{"1", "2", "3"}},
		{"gone after three requests", func(_ *testing.T, w *world) {
			n := 0
			w.r.Break(func(q regtest.Request, a *regtest.Answer) {
				if n++; n > 3 {
					regtest.Drop(q, a)
				}
			})
		}, nil},
		{"one of three is gone", func(_ *testing.T, w *world) {
			w.r.Break(regtest.Of(regtest.Refuse(404), w.second.String()))
		}, []string{"2"}},
		{"nothing, and all is well", func(_ *testing.T, w *world) { w.r.Break(regtest.Empty) }, []string{"1", "2", "3"}},
		{"a page, and all is well", func(_ *testing.T, w *world) { w.r.Break(regtest.Page) }, []string{"1", "2", "3"}},
		{"blobs are empty, and all is well", func(_ *testing.T, w *world) {
			w.r.Break(regtest.On(regtest.Empty, regtest.Blob))
		}, []string{"1", "2", "3"}},
		{"no content", func(_ *testing.T, w *world) { w.r.Break(regtest.All(regtest.Refuse(204), regtest.Plain(""))) }, []string{"1", "2", "3"}},
		{"not modified", func(_ *testing.T, w *world) { w.r.Break(regtest.All(regtest.Refuse(304), regtest.Plain(""))) }, []string{"1", "2", "3"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := &world{r: regtest.New(t)}
			w.o = caseOptions(w.r)
			names := []string{"lab.test/lab/tiny:1", "lab.test/lab/tiny:2", "lab.test/lab/tiny:3"}
			for i, n := range names {
				d := w.r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(uint64(i), 4096)}}, strings.TrimPrefix(n, "lab.test/"))
				if i == 1 {
					w.second = d.Digest
				}
			}
			locked := mustLock(t, w.o, names...)
			w.r.Forget()
			tc.break_(t, w)
			s := newStore(t)
			err := mirrorCase(t, w.o, s, locked)
			checkClear(t, err, "lab.test/lab/tiny:")
			for i, n := range names {
				named := err != nil && strings.Contains(err.Error(), n)
				if want := strings.Contains(strings.Join(tc.named, " "), n[len(n)-1:]); tc.named != nil && named != want {
					t.Errorf("error names %s: %v, want %v: %v", n, named, want, err)
				}
				if tc.named != nil && !named {
					verify(t, s, locked[i:i+1]) // the rest is kept
				}
			}
			refusePack(t, s, locked)
			w.r.Break(nil)
			if err := mirrorCase(t, caseOptions(w.r), s, locked); err != nil {
				t.Errorf("next run: %v", err)
			}
			verify(t, s, locked)
		})
	}
}

// refusePack looks that no bundle is made of a store that lacks something, and that an
// older one stays.
func refusePack(t *testing.T, s *bundle.Store, locked []bundle.LockedImage) {
	t.Helper()
	f := bundletest.New(t)
	f.Store, f.Lock.Images = s, locked
	for _, older := range []string{"", "an older one"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "bundle.tar")
		if older != "" {
			if err := os.WriteFile(path, []byte(older), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := bundle.Pack(t.Context(), path, s, f.Lock, f.Artifacts(t), nil); !errors.Is(err, bundle.ErrIncomplete) {
			t.Errorf("packing: got %v, want it incomplete", err)
		}
		if data, err := os.ReadFile(path); string(data) != older || (err == nil) != (older != "") {
			t.Errorf("where a bundle was %q there is %q (%v)", older, data, err)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) > 1 {
			t.Errorf("left behind: %v, %v", files, err)
		}
	}
}

// TestEmptyLock (30): resolving what is no image is an error, not a lock of nothing.
func TestEmptyLock(t *testing.T) {
	for name, fault := range map[string]regtest.Fault{
		"empty": regtest.Empty, "page": regtest.Page, "null": regtest.Plain("null"), "braces": regtest.Plain("{}"),
		"list": regtest.Plain("[]"), "no layers key": regtest.Plain(`{"schemaVersion":2,"mediaType":"` + string(types.OCIManifestSchema1) + `"}`),
		"empty index": regtest.Plain(`{"schemaVersion":2,"mediaType":"` + string(types.OCIImageIndex) + `","manifests":[]}`),
		"schema 1":    regtest.Plain(`{"schemaVersion":1,"name":"lab/tiny","tag":"1","fsLayers":[]}`),
		"an error":    regtest.Plain(`{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := regtest.New(t)
			tiny(r, "lab/tiny:1")
			r.Break(regtest.On(fault, regtest.Manifest))
			locked, err := lockCase(t, caseOptions(r), "lab.test/lab/tiny:1")
			if err == nil {
				t.Fatalf("locked %+v", locked)
			}
			if !strings.Contains(err.Error(), "lab.test/lab/tiny:1") {
				t.Errorf("error does not name the image: %v", err)
			}
		})
	}
}
