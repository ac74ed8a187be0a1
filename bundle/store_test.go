package bundle_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
)

func openStore(t *testing.T, dir string) *bundle.Store {
	t.Helper()
	s, err := bundle.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tempFiles lists what is being written, or was when its writer died.
func tempFiles(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "tmp", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestPut(t *testing.T) {
	data := []byte("some bytes")
	h := bundle.DigestOf(data)
	broken := errors.New("broken pipe")
	for _, test := range []struct {
		name    string
		size    int64
		r       io.Reader
		want    v1.Hash
		corrupt string // what a CorruptError says
		err     error
	}{
		{"right", 10, bytes.NewReader(data), h, "", nil},
		{"size unknown", -1, bytes.NewReader(data), h, "", nil},
		{"empty", 0, bytes.NewReader(nil), bundle.DigestOf(nil), "", nil},
		{"flipped", 10, bytes.NewReader(flip(data, 3)), h, "has digest", nil},
		{"flipped, size unknown", -1, bytes.NewReader(flip(data, 3)), h, "has digest", nil},
		{"cut", 10, bytes.NewReader(data[:9]), h, "cut short at 9 of 10", nil},
		{"endless", 10, io.MultiReader(bytes.NewReader(data), zeros{}), h, "longer than 10", nil},
		{"broken", 10, io.MultiReader(bytes.NewReader(data[:5]), failing{broken}), h, "", broken},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			err := s.Put(t.Context(), test.want, test.size, test.r)
			var corrupt *bundle.CorruptError
			switch {
			case test.corrupt != "":
				if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), test.corrupt) || corrupt.Want != test.want {
					t.Errorf("Put: %v", err)
				}
			case !errors.Is(err, test.err) || (test.err == nil) != (err == nil):
				t.Errorf("Put: %v, want %v", err, test.err)
			}
			ok, herr := s.Has(t.Context(), test.want, test.size)
			if herr != nil || ok != (err == nil) {
				t.Errorf("Has after Put with %v: %v %v", err, ok, herr)
			}
			if left := tempFiles(t, dir); len(left) > 0 {
				t.Errorf("Put left %v", left)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestPutFile(t *testing.T) {
	s := openStore(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, n, err := s.PutFile(t.Context(), path)
	if err != nil || n != 7 || h != bundle.DigestOf([]byte("content")) {
		t.Fatalf("PutFile: %s %d %v", h, n, err)
	}
	f, err := s.Open(h)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if data, err := io.ReadAll(f); err != nil || string(data) != "content" {
		t.Errorf("blob holds %q, %v", data, err)
	}
	if _, _, err := s.PutFile(t.Context(), path+".missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("PutFile of a missing file: %v", err)
	}
}

func TestStoreRefusesBadDigests(t *testing.T) {
	s := openStore(t, t.TempDir())
	for _, h := range []v1.Hash{{}, {Algorithm: "sha256", Hex: "../../etc/passwd"}, {Algorithm: "sha512", Hex: strings.Repeat("a", 128)}} {
		if err := s.Put(t.Context(), h, -1, strings.NewReader("")); err == nil {
			t.Errorf("Put took %q", h)
		}
		if _, err := s.Has(t.Context(), h, -1); err == nil {
			t.Errorf("Has took %q", h)
		}
		if _, err := s.Open(h); err == nil {
			t.Errorf("Open took %q", h)
		}
	}
}

func TestHas(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	var log bytes.Buffer
	s.Log = slog.New(slog.NewTextHandler(&log, nil))
	for name, data := range map[string][]byte{"small": []byte("small"), "large": bytes.Repeat([]byte("large"), 1<<20)} {
		size := int64(len(data))
		h, err := s.PutBytes(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		for damage, spoil := range map[string]func() error{
			// These keep size and inode, and happen at once after Put.
			"flipped": func() error {
				f, err := os.OpenFile(s.Path(h), os.O_RDWR, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = f.WriteAt([]byte{'X'}, size/2)
				return err
			},
			"cut":     func() error { return os.Truncate(s.Path(h), size-1) },
			"zeroed":  func() error { return errors.Join(os.Truncate(s.Path(h), 0), os.Truncate(s.Path(h), size)) },
			"another": func() error { return os.WriteFile(s.Path(h), []byte("another"), 0o644) },
		} {
			if ok, err := s.Has(t.Context(), h, size); !ok || err != nil {
				t.Fatalf("%s: whole blob: %v %v", name, ok, err)
			}
			if ok, err := s.Has(t.Context(), h, size+1); ok || err != nil {
				t.Fatalf("%s: of another size: %v %v", name, ok, err)
			}
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			log.Reset()
			if ok, err := s.Has(t.Context(), h, -1); ok || err != nil {
				t.Errorf("%s %s: Has = %v, %v", name, damage, ok, err)
			}
			if !strings.Contains(log.String(), h.Hex) {
				t.Errorf("%s %s: log does not tell: %q", name, damage, log.String())
			}
			if _, err := os.Stat(s.Path(h)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s %s: corrupt blob is still there (%v)", name, damage, err)
			}
			if _, err := s.PutBytes(t.Context(), data); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What was once hashed is not hashed again, also by another process.
func TestHasRemembers(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	data := make([]byte, 64<<20)
	h, err := s.PutBytes(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "verified", h.Hex)); err != nil {
		t.Error("Put does not remember:", err)
	}
	start := time.Now()
	for range 100 {
		if ok, err := openStore(t, dir).Has(t.Context(), h, int64(len(data))); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if took := time.Since(start); took > time.Second { // hashing would take 3 s at 2 GB/s
		t.Errorf("asking 100 times for 64 MiB took %v", took)
	}
}

func TestPutAtOnce(t *testing.T) {
	dir := t.TempDir()
	data := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	h := bundle.DigestOf(data)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			s, err := bundle.OpenStore(dir) // must not take the others' files for stale ones
			if err != nil {
				t.Error(err)
				return
			}
			if i%4 == 0 {
				var corrupt *bundle.CorruptError
				if err := s.Put(t.Context(), h, int64(len(data)), bytes.NewReader(flip(data, i))); !errors.As(err, &corrupt) {
					t.Errorf("bad writer: %v", err)
				}
				return
			}
			if err := s.Put(t.Context(), h, int64(len(data)), bytes.NewReader(data)); err != nil {
				t.Error(err)
			}
			if ok, err := s.Has(t.Context(), h, -1); !ok || err != nil {
				t.Error(ok, err)
			}
		})
	}
	wg.Wait()
	if left := tempFiles(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestPutCancel(t *testing.T) {
	s := openStore(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Put(ctx, bundle.DigestOf(nil), -1, zeros{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Put: %v", err)
	}
}

// TestKilled kills a process that is in the middle of Put, of Pack, or waits there, and
// goes on in its folders.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("ATOLL_TEST_CHILD"); dir != "" {
		child(t, dir)
		return
	}
	for _, in := range []string{"put", "pack"} {
		t.Run(in, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
			cmd.Env = append(os.Environ(), "ATOLL_TEST_CHILD="+dir, "ATOLL_TEST_IN="+in)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, len(midway))); err != nil {
				t.Fatal("child did not get midway:", err)
			}
			store, pattern := filepath.Join(dir, "store"), filepath.Join(dir, "store", "tmp", "*")
			if in == "pack" {
				pattern = filepath.Join(dir, ".bundle.tar.tmp-*")
			}
			// While the child lives, its file is its own.
			openStore(t, store)
			if in == "pack" {
				packKilled(t, dir, filepath.Join(dir, "other.tar"))
			}
			if left, _ := filepath.Glob(pattern); len(left) != 1 {
				t.Fatalf("with the child alive there are %v", left)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait() // tells that it was killed
			if left, _ := filepath.Glob(pattern); len(left) != 1 {
				t.Fatalf("the killed child left %v", left)
			}
			if _, err := os.Stat(filepath.Join(dir, "bundle.tar")); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("half a bundle under its final name (%v)", err)
			}

			s := openStore(t, store)
			h := bundle.DigestOf(killedData())
			if ok, err := s.Has(t.Context(), h, -1); ok != (in == "pack") || err != nil {
				t.Fatal(ok, err)
			}
			if err := s.Put(t.Context(), h, -1, bytes.NewReader(killedData())); err != nil {
				t.Fatal(err)
			}
			packKilled(t, dir, filepath.Join(dir, "bundle.tar"))
			if left, _ := filepath.Glob(pattern); len(left) > 0 {
				t.Errorf("still there: %v", left)
			}
		})
	}
}

const midway = "midway"

func killedData() []byte { return bytes.Repeat([]byte("killed"), 1<<20) }

// child gets midway, says so, and stays there.
func child(t *testing.T, dir string) {
	s := openStore(t, filepath.Join(dir, "store"))
	stop := func() {
		fmt.Print(midway)
		time.Sleep(time.Hour) // not select: where nothing else runs that is a deadlock, and ends the process
	}
	data := killedData()
	if os.Getenv("ATOLL_TEST_IN") == "put" {
		s.Put(t.Context(), bundle.DigestOf(data), -1, io.MultiReader(bytes.NewReader(data[:len(data)/2]), waiting(stop)))
		return
	}
	if _, err := s.PutBytes(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	l, artifacts := killedLock(t, s)
	bundle.Pack(t.Context(), filepath.Join(dir, "bundle.tar"), s, l, artifacts, &bundle.PackOptions{
		Progress: func(done, total int64) {
			if done > total/2 {
				stop()
			}
		},
	})
}

type waiting func()

func (w waiting) Read([]byte) (int, error) { w(); return 0, io.EOF }

func killedLock(t *testing.T, s *bundle.Store) (*bundle.Lock, []bundle.Artifact) {
	t.Helper()
	l := &bundle.Lock{Version: 1, Definition: bundle.DigestOf(nil), Manifests: bundle.DigestOf(nil), Platform: "linux/amd64", Epoch: time.Unix(1<<30, 0)}
	lock, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.PutBytes(t.Context(), lock)
	if err != nil {
		t.Fatal(err)
	}
	data := killedData()
	return l, []bundle.Artifact{
		{Type: bundle.ArtifactLock, Files: []bundle.File{{Name: "appliance.lock", Digest: h, Size: int64(len(lock))}}},
		{Type: bundle.ArtifactK3s, Files: []bundle.File{{Name: "k3s", Digest: bundle.DigestOf(data), Size: int64(len(data))}}},
	}
}

func packKilled(t *testing.T, dir, path string) {
	t.Helper()
	s := openStore(t, filepath.Join(dir, "store"))
	l, artifacts := killedLock(t, s)
	if err := bundle.Pack(t.Context(), path, s, l, artifacts, nil); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Verify(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}
