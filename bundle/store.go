package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle/bounds"
)

// A Store keeps blobs in a folder, each once, under its digest. Many goroutines
// and processes may use one folder at the same time.
//
//	sha256/HEX    a whole blob
//	verified/HEX  the state of the blob's file when its digest was last checked
//	tmp/part-HEX  what has come of a blob: see [Partial]
//	tmp/blob-*    other blobs being written
//	lock          held while a blob is put in its place or removed
type Store struct {
	// Log is told about corrupt blobs. Nil discards.
	Log *slog.Logger

	dir      string
	hashed   *sync.Map     // digest to file state; nil if records are trusted
	patience time.Duration // see defaultPatience
}

// OpenStore opens the store at dir and makes it if there is none. What killed
// writers left behind is removed, but for what others can go on with.
func OpenStore(dir string) (*Store, error) {
	s := &Store{dir: dir, patience: defaultPatience}
	for _, sub := range []string{"sha256", "verified", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("opening store: %w", err)
		}
	}
	if err := errors.Join(removeStaleTemps(s.tmp(), tempPrefix, always), s.removeStalePartials()); err != nil {
		return nil, fmt.Errorf("opening store %s: %w", dir, err)
	}
	return s, nil
}

const tempPrefix = "blob-"

// Path is where the blob is or would be.
func (s *Store) Path(h v1.Hash) string { return filepath.Join(s.dir, "sha256", h.Hex) }

func (s *Store) tmp() string             { return filepath.Join(s.dir, "tmp") }
func (s *Store) record(h v1.Hash) string { return filepath.Join(s.dir, "verified", h.Hex) }

// Open opens the blob for reading. It does not check the blob: see [Store.Has].
func (s *Store) Open(h v1.Hash) (*os.File, error) {
	if !valid(h) {
		return nil, fmt.Errorf("opening blob: %q is no sha256 digest", h)
	}
	f, err := os.Open(s.Path(h))
	if err != nil {
		return nil, fmt.Errorf("opening blob: %w", err)
	}
	return f, nil
}

// Put stores what r holds as the blob want. If size is not negative r must hold
// exactly that many bytes; no more than one byte beyond it is read. Other bytes
// than want says give a [CorruptError], and nothing is stored.
func (s *Store) Put(ctx context.Context, want v1.Hash, size int64, r io.Reader) error {
	if !valid(want) {
		return fmt.Errorf("storing blob: %q is no sha256 digest", want)
	}
	if size >= 0 {
		r = io.LimitReader(r, size+1)
	}
	_, _, err := s.put(ctx, r, func(got v1.Hash, n int64) error {
		switch {
		case size >= 0 && n < size:
			return &CorruptError{Name: "blob", Want: want, Err: fmt.Errorf("cut short at %d of %d bytes", n, size)}
		case size >= 0 && n > size:
			return &CorruptError{Name: "blob", Want: want, Err: fmt.Errorf("longer than %d bytes", size)}
		case got != want:
			return &CorruptError{Name: "blob", Want: want, Got: got}
		}
		return nil
	})
	return err
}

// PutBytes stores data and gives its digest.
func (s *Store) PutBytes(ctx context.Context, data []byte) (v1.Hash, error) {
	h := DigestOf(data)
	return h, s.Put(ctx, h, int64(len(data)), bytes.NewReader(data))
}

// PutFile stores a copy of the file at path and gives its digest and size in bytes.
func (s *Store) PutFile(ctx context.Context, path string) (v1.Hash, int64, error) {
	f, err := OpenRegular(path)
	if err != nil {
		return v1.Hash{}, 0, fmt.Errorf("storing file: %w", err)
	}
	defer f.Close()
	h, n, err := s.put(ctx, f, func(v1.Hash, int64) error { return nil })
	if err != nil {
		return v1.Hash{}, 0, fmt.Errorf("storing %s: %w", path, err)
	}
	return h, n, nil
}

// put streams r into a temporary file and, if check agrees with the digest and
// length, gives it its name.
func (s *Store) put(ctx context.Context, r io.Reader, check func(v1.Hash, int64) error) (h v1.Hash, n int64, err error) {
	f, err := createTemp(s.tmp(), tempPrefix, 0o644)
	if err != nil {
		return h, 0, fmt.Errorf("storing blob: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
		f.Close()
	}()
	sum := sha256.New()
	if n, err = copyContext(ctx, io.MultiWriter(f, sum), r, make([]byte, copySize)); err != nil {
		return h, n, fmt.Errorf("storing blob: %w", err)
	}
	h = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	if err = check(h, n); err != nil {
		return h, n, err
	}
	if err = s.commit(f, h); err != nil {
		return h, n, fmt.Errorf("storing blob %s: %w", h, err)
	}
	return h, n, nil
}

// commit makes f, whose content is right, the blob h.
func (s *Store) commit(f *os.File, h v1.Hash) error {
	// A second in the past: any later write, however soon, changes the time, and
	// with it the state that the record is about.
	past := time.Now().Add(-time.Second)
	if err := os.Chtimes(f.Name(), past, past); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		// What the disk refused may still be in memory, and look whole to the next run.
		return errors.Join(err, f.Truncate(0))
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := s.exclusive(func() error { return os.Rename(f.Name(), s.Path(h)) }); err != nil {
		return err
	}
	s.remember(h, info)
	return nil
}

// Sync makes that what was stored is still there after a power cut. Without it a blob of
// the last seconds may be gone then, or be a [Partial] again; it is never wrong.
func (s *Store) Sync() error { return syncDir(filepath.Join(s.dir, "sha256")) }

// exclusive runs f while no one else puts a blob in its place or removes one.
func (s *Store) exclusive(f func() error) error {
	lock, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := flock(lock, syscall.LOCK_EX); err != nil {
		return err
	}
	return f()
}

// stat gives a blob's size, false if there is none.
func (s *Store) stat(h v1.Hash) (int64, bool) {
	info, err := os.Stat(s.Path(h))
	if !valid(h) || err != nil {
		return 0, false
	}
	return info.Size(), true
}

// load gives the bytes of a manifest. A corrupt one is removed.
func (s *Store) load(h v1.Hash) ([]byte, error) {
	f, err := s.Open(h)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, bounds.Manifest+1))
	if err != nil {
		return nil, fmt.Errorf("reading blob %s: %w", h, err)
	}
	if len(data) > bounds.Manifest {
		return nil, fmt.Errorf("blob %s is larger than the %d bytes of a manifest", h, bounds.Manifest)
	}
	if got := DigestOf(data); got != h {
		info, err := f.Stat()
		if err == nil {
			err = s.discard(h, info)
		}
		return nil, errors.Join(&CorruptError{Name: s.Path(h), Want: h, Got: got}, err)
	}
	return data, nil
}
