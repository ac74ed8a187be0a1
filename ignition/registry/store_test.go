package registry

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/testsuites"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// Distribution's own tests of drivers, but for the one that writes 5 GB, and that of the words in
// which an invalid path is refused: that is [os.Root]'s business here.
func TestDriver(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute")
	}
	if err := flag.Set("testify.m", "^Test([^WI]|Write[^R]|WriteRead[^L])"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	testsuites.Driver(t, func() (driver.StorageDriver, error) {
		s, err := openStore(dir, newLedger(dir, 1<<40, 0, 0))
		return withoutTemp{s}, err
	}, false)
}

// withoutTemp hides the store's own folder from a test that looks for what was left.
type withoutTemp struct{ *store }

func (s withoutTemp) List(ctx context.Context, p string) ([]string, error) {
	names, err := s.store.List(ctx, p)
	return slices.DeleteFunc(names, func(name string) bool { return name == "/"+tempDir }), err
}

func openTest(t *testing.T, quota int64) *store {
	t.Helper()
	dir := t.TempDir()
	l := newLedger(dir, quota, 0, 0)
	if err := l.count(); err != nil {
		t.Fatal(err)
	}
	s, err := openStore(dir, l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStoreStaysInItsFolder(t *testing.T) {
	s := openTest(t, 1<<30)
	outside := filepath.Join(filepath.Dir(s.root.Name()), "outside")
	ctx := t.Context()
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(s.root.Name(), "link")); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/link/outside", "/link/x/outside", "/../outside", "/x/../../outside", "/.."} {
		if err := s.PutContent(ctx, p, []byte("x")); err == nil {
			if _, err := os.Stat(outside); err == nil {
				t.Errorf("%s is outside", p)
			}
		}
		if _, err := s.GetContent(ctx, "/link/../../etc/passwd"); err == nil {
			t.Error("read outside")
		}
	}
}

// Whatever is written and deleted in whatever way, the count is what a new one comes to.
func TestCountIsRight(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 3 {
		if err := remote.Write(w.ref(fmt.Sprintf("a/x%d:1", i)), image(t), from(podA)...); err != nil {
			t.Fatal(err)
		}
	}
	img := image(t)
	for _, n := range []string{"a/y:1", "a/z:1", "a/z:2"} { // the same blobs again
		if err := remote.Write(w.ref(n), img, from(podA)...); err != nil {
			t.Fatal(err)
		}
	}
	if err := remote.Write(w.ref("b/y:1"), img, from(podB)...); err != nil {
		t.Fatal(err)
	}
	resp, _ := w.do(podA, "POST", "/v2/a/x/blobs/uploads/", "", nil)
	if resp, body := w.do(podA, "PATCH", resp.Header.Get("Location"), strings.Repeat("x", 5000), nil); resp.StatusCode != 202 {
		t.Fatal(resp.Status, body)
	}
	resp, _ = w.do(podA, "POST", "/v2/a/x/blobs/uploads/", "", nil)
	if resp, _ := w.do(podA, "DELETE", resp.Header.Get("Location"), "", nil); resp.StatusCode != 204 {
		t.Error(resp.Status)
	}
	if err := remote.Delete(w.ref("a/z:1"), from(podA)...); err != nil {
		t.Fatal(err)
	}
	was, now := w.store.ledger, newLedger(w.dir, 0, 0, 0)
	if err := now.count(); err != nil {
		t.Fatal(err)
	}
	if was.total != now.total || now.total < 4*9000 {
		t.Errorf("total %d, counted anew %d", was.total, now.total)
	}
	for _, ns := range []string{"a", "b"} {
		if was.usage[ns] != now.usage[ns] || now.usage[ns] < 9000 {
			t.Errorf("namespace %s: %d, counted anew %d", ns, was.usage[ns], now.usage[ns])
		}
	}
}

// push pushes an image with one layer of so many bytes, which differ for each name.
func push(t *testing.T, w *world, addr, image string, size int) error {
	t.Helper()
	data := append([]byte(image), make([]byte, size-len(image))...)
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(data, types.DockerLayer))
	if err != nil {
		t.Fatal(err)
	}
	return remote.Write(w.ref(image), img, from(addr)...)
}

func TestQuota(t *testing.T) {
	const quota = 12 << 20
	w := newWorld(t, func(o *Options) { o.Quota = quota })
	// Many at once cannot together take what one may.
	var wg sync.WaitGroup
	errs := make([]error, 12)
	for i := range errs {
		wg.Go(func() { errs[i] = push(t, w, podA, fmt.Sprintf("a/x%d:1", i), 3<<20) })
	}
	wg.Wait()
	for i := range 4 { // now one after the other: what the failed ones took is free
		errs = append(errs, push(t, w, podA, fmt.Sprintf("a/y%d:1", i), 3<<20))
	}
	var pushed, failed int
	for _, err := range errs {
		if err == nil {
			pushed++
			continue
		}
		failed++
		refused(t, err, 403, "DENIED", "the registry is full: it has 12.0 MiB", "atoll node registry gc")
	}
	if pushed == 0 || pushed > 3 || failed < 12 {
		t.Errorf("%d pushed, %d not", pushed, failed)
	}
	var used int64
	if err := walkFiles(filepath.Join(w.dir, "docker"), func(_ string, cost int64) { used += cost }); err != nil || used > quota {
		t.Errorf("%d bytes are used, %v", used, err)
	}
}

func TestShareOfANamespace(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Quota, o.NamespaceQuota = 100<<20, 1<<20 })
	if err := push(t, w, podA, "a/x:1", 700<<10); err != nil {
		t.Fatal(err)
	}
	refused(t, push(t, w, podA, "a/y:1", 700<<10), 403, "DENIED", "the share of namespace a is full: it has 1.0 MiB")
	if err := push(t, w, podB, "b/x:1", 700<<10); err != nil {
		t.Error("another namespace cannot push:", err)
	}
	// What it has already it may push again, and under other names.
	if err := push(t, w, podA, "a/x:1", 700<<10); err != nil {
		t.Error(err)
	}
}

func TestSpareSpace(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.MinFree = 1 << 60 })
	refused(t, push(t, w, podA, "a/x:1", 1000), 403, "DENIED", "the node's disk is nearly full")
}

// zeros are without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// An upload without an end ends where the space does, and is not kept.
func TestEndlessUpload(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Quota = 1 << 20 })
	for _, body := range []io.Reader{io.LimitReader(zeros{}, 8<<20), io.LimitReader(zeros{}, 1<<40)} {
		resp, _ := w.do(podA, "POST", "/v2/a/x/blobs/uploads/", "", nil)
		req, err := http.NewRequest("PATCH", "http://"+w.host+resp.Header.Get("Location"), body)
		if err != nil {
			t.Fatal(err)
		}
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(podA)}}
		got, err := (&http.Transport{DialContext: dialer.DialContext}).RoundTrip(req)
		if err != nil {
			continue // it was still sending when the connection was closed
		}
		answer, err := io.ReadAll(got.Body)
		got.Body.Close()
		if got.StatusCode != 403 || err == nil && !strings.Contains(string(answer), "the registry is full") {
			t.Errorf("%s %s", got.Status, answer)
		}
	}
	w.store.ledger.mu.Lock()
	defer w.store.ledger.mu.Unlock()
	if total := w.store.ledger.total; total > fileCost*2 {
		t.Errorf("%d bytes are left of it", total)
	}
}

// What fails for want of space on the disk says so.
func TestFullDisk(t *testing.T) {
	err := fail(t.Context(), os.NewSyscallError("write", unix.ENOSPC))
	var f *full
	if !errors.As(err, &f) || !strings.Contains(f.reason, "the node's disk is full") {
		t.Error(err)
	}
	if err := fail(context.Background(), io.EOF); err != io.EOF {
		t.Error(err)
	}
}
