package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// age makes all that is stored so much older.
func (w *world) age(d time.Duration) {
	w.t.Helper()
	err := filepath.WalkDir(filepath.Join(w.dir, "docker"), func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		at := info.ModTime().Add(-d)
		return os.Chtimes(p, at, at)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) collect(opts CollectOptions) Collected {
	w.t.Helper()
	c, err := Collect(w.t.Context(), w.dir, opts)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// whole fails unless an image is there with all its blobs.
func (w *world) whole(image string) {
	w.t.Helper()
	img, err := remote.Image(w.ref(image), from(podB)...)
	if err == nil {
		err = validate.Image(img)
	}
	if err != nil {
		w.t.Errorf("%s: %v", image, err)
	}
}

func (w *world) push(image string, img v1.Image) {
	w.t.Helper()
	if err := remote.Write(w.ref(image), img, from(podA)...); err != nil {
		w.t.Fatal(err)
	}
}

func TestCollect(t *testing.T) {
	w := newWorld(t, nil)
	base := image(t)
	top, err := random.Layer(2000, "application/vnd.docker.image.rootfs.diff.tar.gzip")
	if err != nil {
		t.Fatal(err)
	}
	derived, err := mutate.AppendLayers(base, top)
	if err != nil {
		t.Fatal(err)
	}
	w.push("a/x:1", image(t)) // replaced
	w.push("a/x:1", image(t))
	w.push("a/base:1", base)
	w.push("a/derived:1", derived) // loses its tag, but not the base's layers
	idx, err := random.Index(2000, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(w.ref("a/multi:1"), idx, from(podA)...); err != nil {
		t.Fatal(err)
	}
	if err := remote.Delete(w.ref("a/derived:1"), from(podA)...); err != nil {
		t.Fatal(err)
	}
	resp, _ := w.do(podA, "POST", "/v2/a/x/blobs/uploads/", "", nil)
	w.do(podA, "PATCH", resp.Header.Get("Location"), "unfinished", nil)

	if c := w.collect(CollectOptions{}); c != (Collected{}) {
		t.Errorf("of what is young %+v was taken", c)
	}
	w.age(2 * Age)
	want := w.collect(CollectOptions{DryRun: true})
	if want.Manifests != 2 || want.Blobs != 2+4+2 || want.Uploads != 1 || want.Bytes < 3*3000 {
		t.Errorf("%+v would be taken", want) // each image's manifest, config and layers; derived's own layer
	}
	before := w.store.ledger.total
	if got := w.collect(CollectOptions{}); got.Manifests != want.Manifests || got.Blobs != want.Blobs || got.Uploads != want.Uploads {
		t.Errorf("%+v was taken, not %+v", got, want)
	}
	for _, image := range []string{"a/x:1", "a/base:1"} {
		w.whole(image)
	}
	got, err := remote.Index(w.ref("a/multi:1"), from(podB)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(got); err != nil {
		t.Error(err)
	}
	// The server counts anew with the next change, and takes what was deleted again.
	w.push("a/derived:1", derived)
	w.whole("a/derived:1")
	fresh := newLedger(w.dir, 0, 0, 0)
	if err := fresh.count(); err != nil || w.store.ledger.total != fresh.total || fresh.total >= before {
		t.Errorf("%d counted, %d there, %d before; %v", w.store.ledger.total, fresh.total, before, err)
	}
	if c := w.collect(CollectOptions{Age: time.Nanosecond}); c != (Collected{}) {
		t.Errorf("%+v was taken after all", c)
	}
}

// A client asks for what it need not send. That is not taken before it can name it, however old
// it is.
func TestCollectLeavesWhatWasAskedFor(t *testing.T) {
	w := newWorld(t, nil)
	img := image(t)
	w.push("a/x:1", img)
	if err := remote.Delete(w.ref("a/x:1"), from(podA)...); err != nil {
		t.Fatal(err)
	}
	w.age(2 * Age)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	d, err := layers[1].Digest()
	if err != nil {
		t.Fatal(err)
	}
	if resp, _ := w.do(podA, "HEAD", "/v2/a/x/blobs/"+d.String(), "", nil); resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	w.collect(CollectOptions{})
	for i, l := range layers {
		d, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		resp, _ := w.do(podA, "GET", "/v2/a/x/blobs/"+d.String(), "", nil)
		if want := map[bool]int{true: 200, false: 404}[i == 1]; resp.StatusCode != want {
			t.Errorf("layer %d: %s, want %d", i, resp.Status, want)
		}
	}
}

// Pushes go on while collections run, and nothing that they need is taken: neither what they send,
// nor old layers that nothing else names.
func TestCollectWhilePushing(t *testing.T) {
	w := newWorld(t, nil)
	old := image(t)
	w.push("a/old:1", old)
	if err := remote.Delete(w.ref("a/old:1"), from(podA)...); err != nil {
		t.Fatal(err)
	}
	w.age(2 * time.Hour)
	stop := make(chan struct{})
	var collections sync.WaitGroup
	collections.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := Collect(t.Context(), w.dir, CollectOptions{Age: time.Hour}); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	var pushes sync.WaitGroup
	for i := range 4 {
		pushes.Go(func() {
			for j := range 5 {
				layer, err := random.Layer(2000, "application/vnd.docker.image.rootfs.diff.tar.gzip")
				if err != nil {
					t.Error(err)
					return
				}
				img, err := mutate.AppendLayers(old, layer)
				if err != nil {
					t.Error(err)
					return
				}
				if err := remote.Write(w.ref(fmt.Sprintf("a/old:%d-%d", i, j)), img, from(podA)...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	pushes.Wait()
	close(stop)
	collections.Wait()
	for i := range 4 {
		for j := range 5 {
			w.whole(fmt.Sprintf("a/old:%d-%d", i, j))
		}
	}
}

// While a collection runs everything waits that it could miss, and it waits for what runs.
func TestCollectionExcludes(t *testing.T) {
	w := newWorld(t, nil)
	img := image(t)
	w.push("a/x:1", img)
	d := must(must(img.Layers())[0].Digest()).String()
	raw := string(must(img.RawManifest()))
	mediaType := string(must(img.MediaType()))
	upload, _ := w.do(podA, "POST", "/v2/a/x/blobs/uploads/", "", nil)
	location := upload.Header.Get("Location")

	for _, exclusive := range []bool{true, false} {
		lock, err := lockFolder(t.Context(), w.dir, exclusive)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if _, err := Collect(ctx, w.dir, CollectOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a collection did not wait: %v", err)
		}
		cancel()
		for _, tc := range []struct {
			method, path, body string
			waits              bool
		}{
			{"GET", "/v2/a/x/manifests/1", "", false},
			{"GET", "/v2/a/x/blobs/" + d, "", false},
			{"GET", location, "", false},
			{"HEAD", "/v2/a/x/blobs/" + d, "", true},
			{"POST", "/v2/a/y/blobs/uploads/?from=a/x&mount=" + d, "", true},
			{"PUT", location + "&digest=" + d, "data", true},
			{"PUT", "/v2/a/x/manifests/2", raw, true},
			{"DELETE", "/v2/a/x/manifests/3", "", true},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			if !exclusive || !tc.waits {
				cancel()
				ctx, cancel = context.WithCancel(t.Context())
			}
			req := httptest.NewRequestWithContext(ctx, tc.method, tc.path, strings.NewReader(tc.body))
			req.RemoteAddr = podA + ":1234"
			req.Header.Set("Accept", mediaType)
			if tc.method == http.MethodPut {
				req.Header.Set("Content-Type", mediaType)
			}
			got := httptest.NewRecorder()
			w.ServeHTTP(got, req)
			if waited := ctx.Err() != nil; waited != (exclusive && tc.waits) {
				t.Errorf("exclusive %v: %s %s waited: %v: %d %s", exclusive, tc.method, tc.path, waited, got.Code, got.Body)
			}
			cancel()
		}
		lock.unlock()
	}
}

// A slow upload does not hold a collection up, nor is it taken.
func TestCollectDuringSlowUpload(t *testing.T) {
	w := newWorld(t, nil)
	resp, _ := w.do(podA, "POST", "/v2/a/x/blobs/uploads/", "", nil)
	r, s := io.Pipe()
	done := make(chan string)
	go func() { done <- w.patch(podA, resp.Header.Get("Location"), r) }()
	io.WriteString(s, "some")
	w.collect(CollectOptions{Age: time.Hour})
	io.WriteString(s, " more")
	s.Close()
	if status := <-done; !strings.HasPrefix(status, "202") {
		t.Error(status)
	}
}

// A manifest that cannot be read may name anything, so nothing is taken.
func TestCollectOfDamagedManifest(t *testing.T) {
	w := newWorld(t, nil)
	img := mutate.MediaType(empty.Image, "application/vnd.oci.image.manifest.v1+json")
	w.push("a/x:1", img)
	w.push("a/y:1", image(t))
	if err := remote.Delete(w.ref("a/y:1"), from(podA)...); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, blobFile(d.Algorithm, d.Hex)), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.age(2 * Age)
	c, err := Collect(t.Context(), w.dir, CollectOptions{})
	if err == nil || c != (Collected{}) || !strings.Contains(err.Error(), d.String()) {
		t.Errorf("%+v, %v", c, err)
	}
	if err := remote.Delete(w.ref("a/x@"+d.String()), from(podA)...); err != nil {
		t.Error("the way out that the message names:", err)
	}
	if c := w.collect(CollectOptions{}); c.Manifests != 1 {
		t.Errorf("%+v", c)
	}
}
