package disk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
)

// imageSum is the sha256 of an image's bytes, holes too. It takes them in order.
type imageSum struct {
	hash.Hash
	at int64 // how many it has
}

func newImageSum() *imageSum { return &imageSum{Hash: sha256.New()} }

func (s *imageSum) Write(b []byte) (int, error) {
	s.at += int64(len(b))
	return s.Hash.Write(b)
}

// zeros takes zeros up to an offset.
func (s *imageSum) zeros(to int64) {
	for s.at < to {
		s.Write(zeros[:min(int64(len(zeros)), to-s.at)])
	}
}

// read takes what the file has from where the sum is up to an offset.
func (s *imageSum) read(ctx context.Context, f *os.File, to int64) error {
	base := s.at
	err := eachBlock(ctx, f, base, to, func(offset int64, block []byte) error {
		s.zeros(offset)
		s.Write(block)
		return nil
	})
	s.zeros(to)
	return err
}

func (s *imageSum) digest() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(s.Sum(nil))}
}

// Sum returns the sha256 of a disk image, as sha256sum computes it. Holes are not read.
func Sum(ctx context.Context, path string, progress func(done, total int64)) (v1.Hash, error) {
	f, err := bundle.OpenRegular(path)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("hashing image: %w", err)
	}
	defer f.Close()
	return sumFile(ctx, f, progress)
}

// Sum is what [Sum] is, of the file that is open and no other that may get its name.
func (m *RawImage) Sum(ctx context.Context, progress func(done, total int64)) (v1.Hash, error) {
	return sumFile(ctx, m.f, progress)
}

func sumFile(ctx context.Context, f *os.File, progress func(done, total int64)) (v1.Hash, error) {
	info, err := f.Stat()
	if err != nil {
		return v1.Hash{}, fmt.Errorf("hashing image: %w", err)
	}
	size := info.Size()
	s := newImageSum()
	for s.at < size {
		if err := s.read(ctx, f, min(size, s.at+64*mib)); err != nil {
			return v1.Hash{}, fmt.Errorf("hashing image %s: %w", f.Name(), err)
		}
		progress(s.at, size)
	}
	return s.digest(), nil
}
