package firstboot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/singleflight"

	"atoll/bundle"
)

// hashChunk is how much of a blob is read at a time, and how much of its end is withheld
// until its digest is right.
const hashChunk = 256 << 10

// maxDamages bounds how many damaged blobs are told of.
const maxDamages = 16

// verifier knows which blobs of a bundle are what their digests say. Each blob is hashed
// once, when it is first asked for.
type verifier struct {
	bundle  *bundle.Bundle
	opts    Options
	names   map[v1.Hash]string // an image that each blob is of
	running singleflight.Group

	mu   sync.Mutex
	good map[v1.Hash]bool
	bad  map[v1.Hash]error // what has been told of
	told []error
}

func newVerifier(b *bundle.Bundle, opts Options) *verifier {
	return &verifier{bundle: b, opts: opts, names: map[v1.Hash]string{}, good: map[v1.Hash]bool{}, bad: map[v1.Hash]error{}}
}

// verified says whether the blob has been hashed and is right.
func (v *verifier) verified(h v1.Hash) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.good[h]
}

// verify hashes a blob unless that was done before. Who asks at the same time waits for the
// same; who goes away does not stop it for the others.
func (v *verifier) verify(ctx context.Context, h v1.Hash) error {
	if v.verified(h) {
		return nil
	}
	done := v.running.DoChan(h.Hex, func() (any, error) { return nil, v.hash(h) })
	select {
	case res := <-done:
		return res.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *verifier) hash(h v1.Hash) error {
	if v.verified(h) {
		return nil
	}
	r, ok := v.bundle.Blob(h)
	if !ok {
		return errors.New("blob is not in the bundle")
	}
	sum := sha256.New()
	_, err := io.CopyBuffer(sum, r, make([]byte, hashChunk))
	return v.conclude(h, sum, err)
}

// send writes a blob that has not been verified, and hashes it on the way. Its end is
// written only if its digest is right, so that nobody gets another blob whole. The file is
// at the blob's start.
func (v *verifier) send(w io.Writer, f *os.File, h v1.Hash, size int64) (n int64, err error) {
	sum := sha256.New()
	buf := make([]byte, hashChunk)
	for {
		chunk := buf[:min(hashChunk, size-n)]
		if _, err := io.ReadFull(f, chunk); err != nil {
			return n, v.conclude(h, sum, err)
		}
		sum.Write(chunk)
		if n+int64(len(chunk)) == size {
			if err := v.conclude(h, sum, nil); err != nil {
				return n, err
			}
		}
		sent, err := w.Write(chunk)
		n += int64(sent)
		if err != nil || n == size {
			return n, err
		}
	}
}

// conclude takes note of what hashing a blob came to, and tells if it is not what it should be.
func (v *verifier) conclude(h v1.Hash, sum hash.Hash, err error) error {
	got := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil && got == h {
		v.good[h] = true
		return nil
	}
	offset, _, _ := v.bundle.Section(h)
	name := fmt.Sprintf("image %s: its blob at byte %d of %s", v.names[h], offset, v.bundle.Path())
	if err != nil {
		err = fmt.Errorf("%s (%s) cannot be read: %w", name, h, err)
	} else {
		err = &bundle.CorruptError{Name: name, Want: h, Got: got}
	}
	if v.bad[h] == nil && len(v.told) < maxDamages {
		v.told = append(v.told, err)
		v.opts.phase(phaseRegistry, func() error { return errors.Join(v.told...) })
	}
	v.bad[h] = err
	return err
}
