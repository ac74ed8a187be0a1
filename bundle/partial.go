package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	partialPrefix = "part-"
	// partialAge is how long what came of a blob is kept for someone to go on with it.
	partialAge = 7 * 24 * time.Hour
	// defaultPatience is how long another writer may bring nothing before this one
	// no longer waits for it: that process may be stopped.
	defaultPatience = 2 * time.Minute
	// waitPoll is how often it is looked whether that writer is done.
	waitPoll = 50 * time.Millisecond
)

// A Partial is a blob of which only the first bytes may have come. What is written to
// it outlives its process, and whoever asks for the same blob next goes on behind it.
// One writes it at a time, of all processes.
//
// Nothing of it is trusted. After a power cut its end may be wrong, for it is not synced
// before it is whole; but the digest is that of all its bytes, those found on disk
// included, so that a wrong one costs another download and is never a wrong blob.
type Partial struct {
	store   *Store
	want    v1.Hash
	size    int64
	f       *os.File
	useless bool // to others: they cannot find it, or need it no more
	sum     hash.Hash
	n       int64
	done    bool
}

// Partial opens what has come of the blob, to go on with it; it is made if there is
// none. If another process is at it, Partial waits until that ends. It is nil if the
// store has the blob by then.
func (s *Store) Partial(ctx context.Context, want v1.Hash, size int64) (*Partial, error) {
	if !valid(want) || size < 0 {
		return nil, fmt.Errorf("fetching blob: %q of %d bytes is no sha256 digest and size", want, size)
	}
	p := &Partial{store: s, want: want, size: size, sum: sha256.New()}
	var err error
	if p.f, err = s.lockPartial(ctx, want, size); err != nil {
		return nil, fmt.Errorf("fetching blob %s: %w", want, err)
	}
	if p.f == nil {
		p.useless = true
		if p.f, err = createTemp(s.tmp(), tempPrefix, 0o644); err != nil {
			return nil, fmt.Errorf("fetching blob %s: %w", want, err)
		}
	}
	have, err := s.Has(ctx, want, size)
	switch {
	case err != nil:
	case have:
		p.useless = true
	default:
		err = p.recall(ctx)
	}
	if err != nil || have {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (s *Store) partial(h v1.Hash) string { return filepath.Join(s.tmp(), partialPrefix+h.Hex) }

// lockPartial opens the blob's partial file for this process alone. It is nil if that
// cannot be had: the file belongs to another user, or to a process that does not get on,
// or is none that a blob of at most so many bytes would have.
func (s *Store) lockPartial(ctx context.Context, h v1.Hash, most int64) (*os.File, error) {
	size, since := int64(-1), time.Now()
	for {
		f, err := os.OpenFile(s.partial(h), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o644)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EISDIR) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err != nil || !info.Mode().IsRegular() || info.Size() > most {
			f.Close()
			return nil, err
		}
		owned, err := tryLockNamed(f)
		if owned {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
		switch {
		case info.Size() != size:
			if size < 0 && s.Log != nil {
				s.Log.Info("waiting for the process that fetches the same blob", "digest", h)
			}
			size, since = info.Size(), time.Now()
		case time.Since(since) > s.patience:
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(waitPoll):
		}
	}
}

// recall computes the digest of what is on disk. Hashing that again is far faster than
// any network, so that the state of a hash need not be kept.
func (p *Partial) recall(ctx context.Context) error {
	info, err := p.f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > p.size { // it has grown since
		return p.Restart()
	}
	p.n, err = copyContext(ctx, p.sum, p.f, make([]byte, min(copySize, info.Size()+1)))
	return err
}

// Len is how many of the blob's bytes are there: where to go on.
func (p *Partial) Len() int64 { return p.n }

// Fill adds what r has, until the blob has all its bytes. It is [io.ErrUnexpectedEOF] if
// r ends before. What came before an error stays.
func (p *Partial) Fill(ctx context.Context, r io.Reader) error {
	n, err := copyContext(ctx, p, io.LimitReader(r, p.size-p.n), make([]byte, min(copySize-1, p.size-p.n)+1))
	if err == nil && p.n < p.size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("fetching blob %s, after %d bytes: %w", p.want, n, err)
	}
	return nil
}

// Write adds b.
func (p *Partial) Write(b []byte) (int, error) {
	n, err := p.f.Write(b)
	p.sum.Write(b[:n])
	p.n += int64(n)
	return n, err
}

// StartOver has the blob's first bytes come next. Those that are there are replaced one by
// one, so that a run that is killed meanwhile loses none.
func (p *Partial) StartOver() error {
	p.n = 0
	p.sum.Reset()
	if _, err := p.f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("fetching blob %s: %w", p.want, err)
	}
	return nil
}

// Restart drops all bytes, which are wrong.
func (p *Partial) Restart() error {
	if err := errors.Join(p.StartOver(), p.f.Truncate(0)); err != nil {
		return fmt.Errorf("fetching blob %s: %w", p.want, err)
	}
	return nil
}

// Commit gives the blob its place in the store. Bytes that are not what the digest says
// are dropped and are a [CorruptError]; the next ones then are the blob's first again.
func (p *Partial) Commit() error {
	got := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(p.sum.Sum(nil))}
	if got != p.want {
		if err := p.Restart(); err != nil {
			return err
		}
		return &CorruptError{Name: "blob", Want: p.want, Got: got}
	}
	if err := p.store.commit(p.f, p.want); err != nil {
		return fmt.Errorf("storing blob %s: %w", p.want, err)
	}
	p.done = true
	return nil
}

// Close keeps what was written for the next one.
func (p *Partial) Close() error {
	info, err := p.f.Stat()
	if err == nil && !p.done && (p.useless || info.Size() == 0) {
		err = os.Remove(p.f.Name())
	}
	return errors.Join(err, p.f.Close())
}

// removeStalePartials removes the partial files that no one writes and no one will go
// on with: of blobs that the store has, and those that were left for too long.
func (s *Store) removeStalePartials() error {
	return removeStaleTemps(s.tmp(), partialPrefix, func(f *os.File) bool {
		info, err := f.Stat()
		if err != nil {
			return false
		}
		hex := strings.TrimPrefix(filepath.Base(f.Name()), partialPrefix)
		_, have := s.stat(v1.Hash{Algorithm: "sha256", Hex: hex})
		return have || time.Since(info.ModTime()) > partialAge
	})
}
