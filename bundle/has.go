package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Has says whether the store holds the blob, whole. If size is not negative the
// blob must have it. The digest is computed again unless the blob's file is as it
// was when that was last done (inode, size and modification time). A blob that is
// not what its name says is removed.
func (s *Store) Has(ctx context.Context, h v1.Hash, size int64) (bool, error) {
	f, err := s.Open(h)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("checking blob: %w", err)
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("checking blob: %s is no file: remove it", s.Path(h))
	}
	if s.remembers(h, info) {
		return size < 0 || info.Size() == size, nil
	}
	sum := sha256.New()
	if _, err := copyContext(ctx, sum, f, make([]byte, min(copySize, info.Size()+1))); err != nil {
		return false, fmt.Errorf("checking blob %s: %w", h, err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != h.Hex {
		return false, s.discard(h, info)
	}
	s.remember(h, info)
	return size < 0 || info.Size() == size, nil
}

// Rehashing gives a view of the store that trusts no record of an earlier run: Has
// computes each digest once more, and then remembers it.
func (s *Store) Rehashing() *Store {
	view := *s
	view.hashed = &sync.Map{}
	return &view
}

// discard removes a corrupt blob, unless another writer has put a new file in its
// place since info was taken.
func (s *Store) discard(h v1.Hash, info fs.FileInfo) error {
	if s.Log != nil {
		s.Log.Warn("removing corrupt blob from store", "path", s.Path(h))
	}
	err := s.exclusive(func() error {
		now, err := os.Stat(s.Path(h))
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, info) {
			return nil
		}
		return errors.Join(err, os.Remove(s.Path(h)))
	})
	if err != nil {
		return fmt.Errorf("removing corrupt blob: %w", err)
	}
	return nil
}

// rememberSize is the size from which a record is worth a file: below it, hashing
// the blob is as quick as reading the record.
const rememberSize = 64 << 10

// remember records that the blob's file was seen to be right. A record that cannot
// be written, or is torn, only costs hashing again.
func (s *Store) remember(h v1.Hash, info fs.FileInfo) {
	if s.hashed != nil {
		s.hashed.Store(h, fileState(info))
	}
	if info.Size() >= rememberSize {
		f, err := os.OpenFile(s.record(h), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o644)
		if err != nil {
			return
		}
		f.WriteString(fileState(info))
		f.Close()
	}
}

func (s *Store) remembers(h v1.Hash, info fs.FileInfo) bool {
	if s.hashed != nil {
		state, ok := s.hashed.Load(h)
		return ok && state == fileState(info)
	}
	if info.Size() < rememberSize {
		return false
	}
	state, err := os.ReadFile(s.record(h))
	return err == nil && string(state) == fileState(info)
}

func fileState(info fs.FileInfo) string {
	var inode uint64
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return fmt.Sprintf("inode %d size %d mtime %d\n", inode, info.Size(), info.ModTime().UnixNano())
}
