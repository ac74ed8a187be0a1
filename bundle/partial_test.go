package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func partialStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// partialData is a blob of several copy buffers.
func partialData() ([]byte, v1.Hash, int64) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 200<<10)
	return data, DigestOf(data), int64(len(data))
}

// begun leaves the first n bytes of data as a partial file.
func begun(t *testing.T, s *Store, data []byte, n int) {
	t.Helper()
	p, err := s.Partial(t.Context(), DigestOf(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Fill(t.Context(), bytes.NewReader(data[:n])); (err == nil) != (n == len(data)) {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPartialGoesOn(t *testing.T) {
	data, h, size := partialData()
	half := len(data) / 2
	onDisk := func(change func(*os.File) error) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := change(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name   string
		came   int
		change func(*testing.T, string)
		from   int // where it goes on
		wrong  bool
	}{
		{name: "half", came: half, from: half},
		{name: "all", came: len(data), from: len(data)},
		{name: "flipped", came: half, from: half, wrong: true, change: onDisk(func(f *os.File) error {
			_, err := f.WriteAt([]byte{'X'}, 77)
			return err
		})},
		{name: "zeros at the end", came: half, from: half + 4096, wrong: true, change: onDisk(func(f *os.File) error { return f.Truncate(int64(half) + 4096) })},
		{name: "all, flipped", came: len(data), from: len(data), wrong: true, change: onDisk(func(f *os.File) error {
			_, err := f.WriteAt([]byte{'X'}, size-1)
			return err
		})},
		{name: "too long", came: half, from: 0, change: onDisk(func(f *os.File) error { return f.Truncate(size + 1) })},
		{name: "nothing", came: 0, from: 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			s := partialStore(t, dir)
			begun(t, s, data, tc.came)
			if tc.change != nil {
				tc.change(t, s.partial(h))
			}
			p, err := partialStore(t, dir).Partial(t.Context(), h, size)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if p.Len() != int64(tc.from) {
				t.Fatalf("goes on at %d, want %d", p.Len(), tc.from)
			}
			if err := p.Fill(t.Context(), bytes.NewReader(data[tc.from:])); err != nil {
				t.Fatal(err)
			}
			if tc.wrong {
				var corrupt *CorruptError
				if err := p.Commit(); !errors.As(err, &corrupt) || p.Len() != 0 {
					t.Fatalf("wrong bytes: got %v, and %d of them stay", err, p.Len())
				}
				if err := p.Fill(t.Context(), bytes.NewReader(data)); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Commit(); err != nil {
				t.Fatal(err)
			}
			checkBlob(t, s, data)
			partialStore(t, dir)
			if left, _ := filepath.Glob(filepath.Join(dir, "tmp", "*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func checkBlob(t *testing.T, s *Store, data []byte) {
	t.Helper()
	if got, err := os.ReadFile(s.Path(DigestOf(data))); err != nil || !bytes.Equal(got, data) {
		t.Errorf("blob is not what it must be: %d bytes, %v", len(got), err)
	}
}

// TestPartialKilled: a process is killed in the middle of a blob, and the next goes on there.
func TestPartialKilled(t *testing.T) {
	data, h, size := partialData()
	half := len(data) / 2
	if dir := os.Getenv("ATOLL_TEST_PARTIAL"); dir != "" {
		p, err := partialStore(t, dir).Partial(t.Context(), h, size)
		if err != nil {
			t.Fatal(err)
		}
		p.Fill(t.Context(), io.MultiReader(bytes.NewReader(data[:half]), readFunc(func() {
			fmt.Print("midway")
			time.Sleep(time.Hour)
		})))
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestPartialKilled$")
	cmd.Env = append(os.Environ(), "ATOLL_TEST_PARTIAL="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("midway"))); err != nil {
		t.Fatal("child did not get midway:", err)
	}
	// While the child lives the file is its own, however old it looks.
	s := partialStore(t, dir)
	old := time.Now().Add(-2 * partialAge)
	if err := os.Chtimes(s.partial(h), old, old); err != nil {
		t.Fatal(err)
	}
	s = partialStore(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 3*waitPoll)
	defer cancel()
	if p, err := s.Partial(ctx, h, size); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("while another writes: %v, %v", p, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // tells that it was killed
	p, err := s.Partial(t.Context(), h, size)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Len() != int64(half) {
		t.Fatalf("goes on at %d, want %d", p.Len(), half)
	}
	if err := p.Fill(t.Context(), bytes.NewReader(data[half:])); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	checkBlob(t, s, data)
}

type readFunc func()

func (f readFunc) Read([]byte) (int, error) { f(); return 0, io.EOF }

// TestPartialAtOnce: many ask for one blob; one writes it, and the others get it.
func TestPartialAtOnce(t *testing.T) {
	dir := t.TempDir()
	data, h, size := partialData()
	writers := make(chan struct{}, 8)
	errs := make(chan error)
	for range cap(writers) {
		go func() {
			errs <- func() error {
				s, err := OpenStore(dir)
				if err != nil {
					return err
				}
				p, err := s.Partial(t.Context(), h, size)
				if p == nil || err != nil {
					return err
				}
				defer p.Close()
				writers <- struct{}{}
				if err := p.Fill(t.Context(), bytes.NewReader(data)); err != nil {
					return err
				}
				return p.Commit()
			}()
		}()
	}
	for range cap(writers) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if len(writers) != 1 {
		t.Errorf("%d wrote the blob, want one", len(writers))
	}
	checkBlob(t, partialStore(t, dir), data)
}

// TestPartialStopped: who holds the file does not get on. The other does without it.
func TestPartialStopped(t *testing.T) {
	s := partialStore(t, t.TempDir())
	s.patience = 0
	data, h, size := partialData()
	stopped, err := s.Partial(t.Context(), h, size)
	if err != nil {
		t.Fatal(err)
	}
	defer stopped.Close()
	other, err := s.Partial(t.Context(), h, size)
	if err != nil {
		t.Fatal(err)
	}
	given, err := s.Partial(t.Context(), h, size)
	if err != nil {
		t.Fatal(err)
	}
	given.Fill(t.Context(), bytes.NewReader(data[:5])) // and gives up
	if err := given.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*Partial{other, stopped} { // in the end both are right
		if err := p.Fill(t.Context(), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		checkBlob(t, s, data)
	}
	if left, _ := filepath.Glob(filepath.Join(s.tmp(), "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestTryLockNamed: who waited for a lock may find that the file has another name by then.
func TestTryLockNamed(t *testing.T) {
	dir := t.TempDir()
	for name, then := range map[string]func(path string) error{
		"stays":   func(string) error { return nil },
		"gone":    os.Remove,
		"renamed": func(path string) error { return os.Rename(path, filepath.Join(dir, "blob")) },
		"replaced": func(path string) error {
			return errors.Join(os.Rename(path, filepath.Join(dir, "blob")), os.WriteFile(path, nil, 0o644))
		},
	} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := then(f.Name()); err != nil {
			t.Fatal(err)
		}
		if owned, err := tryLockNamed(f); owned != (name == "stays") || err != nil {
			t.Errorf("%s: %v, %v", name, owned, err)
		}
	}
}

func TestStalePartials(t *testing.T) {
	dir := t.TempDir()
	s := partialStore(t, dir)
	for name, age := range map[string]time.Duration{"fresh": 0, "days ago": partialAge - time.Hour, "too old": partialAge + time.Hour, "stored": 0} {
		data := []byte(name)
		begun(t, s, data, 3)
		then := time.Now().Add(-age)
		if err := os.Chtimes(s.partial(DigestOf(data)), then, then); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.PutBytes(t.Context(), []byte("stored")); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Partial(t.Context(), DigestOf([]byte("stored")), 6); p != nil || err != nil {
		t.Errorf("of a blob that is there: %v, %v", p, err)
	}
	if _, err := os.Stat(s.partial(DigestOf([]byte("stored")))); err == nil {
		t.Error("partial file of a blob that is there stays")
	}
	if err := os.WriteFile(s.partial(DigestOf([]byte("stored"))), []byte("sto"), 0o644); err != nil {
		t.Fatal(err)
	}
	partialStore(t, dir)
	for name, want := range map[string]bool{"fresh": true, "days ago": true, "too old": false, "stored": false} {
		if _, err := os.Stat(s.partial(DigestOf([]byte(name)))); (err == nil) != want {
			t.Errorf("%s: kept is %v, want %v", name, err == nil, want)
		}
	}
}

func TestPartialRefuses(t *testing.T) {
	s := partialStore(t, t.TempDir())
	_, h, _ := partialData()
	if _, err := s.Partial(t.Context(), v1.Hash{Algorithm: "sha256", Hex: "../x"}, 1); err == nil {
		t.Error("took a digest that is none")
	}
	if _, err := s.Partial(t.Context(), h, -1); err == nil {
		t.Error("took a size that is none")
	}
}

// TestRehashing: a bit that turned without a trace is found by who trusts no record.
func TestRehashing(t *testing.T) {
	s := partialStore(t, t.TempDir())
	data, h, size := partialData()
	for range 2 { // the second time what is found is remembered
		if _, err := s.PutBytes(t.Context(), data); err != nil {
			t.Fatal(err)
		}
		view := s.Rehashing()
		rot(t, s.Path(h))
		if ok, err := s.Has(t.Context(), h, size); !ok || err != nil {
			t.Fatalf("the record is not trusted: %v, %v", ok, err)
		}
		if ok, err := view.Has(t.Context(), h, size); ok || err != nil {
			t.Errorf("rehashed: %v, %v", ok, err)
		}
	}
	view := s.Rehashing()
	if ok, err := view.Has(t.Context(), h, size); ok || err != nil {
		t.Errorf("what was removed is there: %v, %v", ok, err)
	}
	if _, err := view.PutBytes(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	rot(t, s.Path(h))
	if ok, err := view.Has(t.Context(), h, size); !ok || err != nil {
		t.Errorf("hashes again what it wrote itself: %v, %v", ok, err)
	}
	if err := os.Chtimes(s.Path(h), time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if ok, err := view.Has(t.Context(), h, size); ok || err != nil {
		t.Errorf("a file that has changed: %v, %v", ok, err)
	}
}

// rot flips a bit and keeps the file's times.
func rot(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{b[0] ^ 1}, 100); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
}
