package firstboot_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
	"atoll/bundle/bundletest"
	"atoll/ignition/firstboot"
)

// bigImage packs one image with a layer of some megabytes, and says where its layer is.
func bigImage(t *testing.T) (path string, layer v1.Descriptor) {
	t.Helper()
	content := make([]byte, 3<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	f := bundletest.New(t)
	f.AddImage(t, "quay.io/org/big:1", bundletest.Image(t, bundletest.Platform, string(content)))
	path = f.Pack(t)
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	all, err := b.Contents(b.Images()[0])
	if err != nil {
		t.Fatal(err)
	}
	return path, all[len(all)-1]
}

// flip changes one byte of a blob.
func flip(t *testing.T, path string, h v1.Hash, at int64) {
	t.Helper()
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	offset, _, ok := b.Section(h)
	if !ok {
		t.Fatal("no blob", h)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	one := make([]byte, 1)
	if _, err := f.ReadAt(one, offset+at); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 1
	if _, err := f.WriteAt(one, offset+at); err != nil {
		t.Fatal(err)
	}
}

// serve serves a bundle that nobody has asked yet, and returns where its status is.
func serve(t *testing.T, path string) (*httptest.Server, string) {
	t.Helper()
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	status := filepath.Join(t.TempDir(), "status.json")
	o := &firstboot.Options{Status: status}
	if err := firstboot.RegistryPhase(o, nil); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(firstboot.NewRegistry(b, o))
	t.Cleanup(server.Close)
	return server, status
}

// ask gets a blob, or bytes of it if rng is not empty.
func ask(ctx context.Context, server *httptest.Server, h v1.Hash, rng string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/v2/quay.io/org/big/blobs/"+h.String(), nil)
	if err != nil {
		return 0, nil, err
	}
	if rng != "" {
		req.Header.Set("Range", rng)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, data, err
}

// A blob with a flipped byte reaches nobody whole, however and by how many it is asked for,
// and no range of it does; the status names it. Other blobs are served on.
func TestTamperedBlobs(t *testing.T) {
	path, layer := bigImage(t)
	for name, at := range map[string]int64{"first": 0, "middle": layer.Size / 2, "last": layer.Size - 1} {
		t.Run(name, func(t *testing.T) {
			flip(t, path, layer.Digest, at)
			defer flip(t, path, layer.Digest, at)
			server, status := serve(t, path)
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					rng := []string{"", "bytes=0-", "bytes=5-99", fmt.Sprintf("bytes=%d-", layer.Size-10)}[i%4]
					code, data, err := ask(t.Context(), server, layer.Digest, rng)
					if rng == "" || rng == "bytes=0-" {
						if code/100 == 2 && (err == nil || int64(len(data)) >= layer.Size) {
							t.Errorf("%q: got %d of %d bytes, status %d, %v", rng, len(data), layer.Size, code, err)
						}
					} else if code != http.StatusInternalServerError {
						t.Errorf("%q: got %d bytes, status %d, %v", rng, len(data), code, err)
					}
				})
			}
			wg.Wait()
			s, err := firstboot.ReadStatus(status)
			if err != nil {
				t.Fatal(err)
			}
			b, err := bundle.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			offset, _, _ := b.Section(layer.Digest)
			for _, want := range []string{"registry: image quay.io/org/big:1", layer.Digest.String(), fmt.Sprintf("byte %d of %s", offset, path)} {
				if !strings.Contains(s.Error, want) {
					t.Errorf("status is %q, want %q", s.Error, want)
				}
			}
			if s.State != bundle.StateFailed || s.Phases[0].Name != "registry" || s.Phases[0].State != bundle.StateFailed || strings.Count(s.Error, "corrupt") != 1 {
				t.Errorf("status is %+v", s)
			}
			if code, _, err := ask(t.Context(), server, b.Images()[0].Digest, ""); code != http.StatusOK || err != nil {
				t.Errorf("manifest as blob: %d, %v", code, err)
			}
		})
	}
}

// Small blobs, manifests and configs, are an error from the start.
func TestTamperedManifest(t *testing.T) {
	path, _ := bigImage(t)
	server, status := serve(t, path)
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	// The registry reads manifests when it starts; one may change afterwards.
	flip(t, path, b.Images()[0].Digest, 20)
	resp, err := http.Get(server.URL + "/v2/quay.io/org/big/manifests/1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("status %s", resp.Status)
	}
	if s, err := firstboot.ReadStatus(status); err != nil || s.State != bundle.StateFailed {
		t.Errorf("status is %+v, %v", s, err)
	}
}

// A blob that is right is served whole to all who ask at once, by range too, and from then
// on without being hashed.
func TestFirstReads(t *testing.T) {
	path, layer := bigImage(t)
	server, status := serve(t, path)
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r, _ := b.Blob(layer.Digest)
	want, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			from := []int64{0, 1, 300 << 10}[i%3]
			rng := ""
			if from > 0 {
				rng = fmt.Sprintf("bytes=%d-", from)
			}
			if _, data, err := ask(t.Context(), server, layer.Digest, rng); err != nil || !bytes.Equal(data, want[from:]) {
				t.Errorf("%q: got %d of %d bytes, %v", rng, len(data), len(want), err)
			}
		})
	}
	// One who goes away must not spoil it for the others.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ask(ctx, server, layer.Digest, "bytes=9-")
	wg.Wait()
	// Verified once per boot: what changes afterwards is for who reads it to see, as before.
	flip(t, path, layer.Digest, 0)
	if _, data, err := ask(t.Context(), server, layer.Digest, ""); err != nil || len(data) != len(want) {
		t.Errorf("was hashed again: %d bytes, %v", len(data), err)
	}
	if s, err := firstboot.ReadStatus(status); err != nil || s.State == bundle.StateFailed {
		t.Errorf("status is %+v, %v", s, err)
	}
}

// What cannot be read is told like what is wrong.
func TestUnreadableBlob(t *testing.T) {
	path, layer := bigImage(t)
	server, status := serve(t, path)
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ask(t.Context(), server, layer.Digest, ""); err == nil {
		t.Error("got a blob that is gone")
	}
	if s, err := firstboot.ReadStatus(status); err != nil || s.State != bundle.StateFailed || !strings.Contains(s.Error, "cannot be read") {
		t.Errorf("status is %+v, %v", s, err)
	}
}

// BenchmarkFirstRead and BenchmarkNextRead say what hashing costs.
func BenchmarkRead(b *testing.B) {
	content := make([]byte, 64<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	f := bundletest.New(b)
	f.AddImage(b, "quay.io/org/big:1", bundletest.Image(b, bundletest.Platform, string(content)))
	bb, err := bundle.Open(f.Pack(b))
	if err != nil {
		b.Fatal(err)
	}
	defer bb.Close()
	all, err := bb.Contents(bb.Images()[0])
	if err != nil {
		b.Fatal(err)
	}
	layer := all[len(all)-1]
	for _, again := range []bool{false, true} {
		b.Run(map[bool]string{false: "first", true: "next"}[again], func(b *testing.B) {
			b.SetBytes(layer.Size)
			server := httptest.NewServer(firstboot.NewRegistry(bb, nil))
			defer server.Close()
			for b.Loop() {
				if !again {
					server.Config.Handler = firstboot.NewRegistry(bb, nil)
				}
				resp, err := http.Get(server.URL + "/v2/quay.io/org/big/blobs/" + layer.Digest.String())
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != layer.Size {
					b.Fatal(n, err)
				}
				resp.Body.Close()
			}
		})
	}
}
