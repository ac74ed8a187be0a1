package bundle

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestPartialIsNoFile: what someone put in the place of a partial file is neither followed
// nor in the way.
func TestPartialIsNoFile(t *testing.T) {
	data, h, size := partialData()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, data[:5], 0o644); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func(path string) error{
		"link":   func(path string) error { return os.Symlink(outside, path) },
		"folder": func(path string) error { return os.Mkdir(path, 0o755) },
		"fifo":   func(path string) error { return syscall.Mkfifo(path, 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			s := partialStore(t, t.TempDir())
			if err := put(s.partial(h)); err != nil {
				t.Fatal(err)
			}
			p, err := s.Partial(t.Context(), h, size)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if err := errors.Join(p.Fill(t.Context(), bytes.NewReader(data)), p.Commit()); err != nil {
				t.Fatal(err)
			}
			checkBlob(t, s, data)
			if got, err := os.ReadFile(outside); err != nil || !bytes.Equal(got, data[:5]) {
				t.Errorf("a file out of the store is changed: %d bytes, %v", len(got), err)
			}
		})
	}
}

// TestRecordIsNotFollowed: the same of the record of a blob.
func TestRecordIsNotFollowed(t *testing.T) {
	s := partialStore(t, t.TempDir())
	data, h, size := partialData()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Symlink(outside, s.record(h)); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), h, size, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("a record is written out of the store")
	}
	if have, err := s.Has(t.Context(), h, size); !have || err != nil {
		t.Errorf("store has the blob: %v, %v", have, err)
	}
}

// TestPartialStartsOver: bytes that come again replace those that are there one by one, so
// that whoever is killed meanwhile loses none.
func TestPartialStartsOver(t *testing.T) {
	data, h, size := partialData()
	dir := t.TempDir()
	s := partialStore(t, dir)
	half := len(data) / 2
	begun(t, s, data, half)
	p, err := s.Partial(t.Context(), h, size)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.StartOver(); err != nil {
		t.Fatal(err)
	}
	if err := p.Fill(t.Context(), bytes.NewReader(data[:100])); err == nil || p.Len() != 100 {
		t.Fatalf("has %d bytes (%v), want 100", p.Len(), err)
	}
	p.Close()
	if p, err = s.Partial(t.Context(), h, size); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Len() != int64(half) {
		t.Errorf("%d bytes stay, want %d", p.Len(), half)
	}
	if err := errors.Join(p.Fill(t.Context(), bytes.NewReader(data[half:])), p.Commit()); err != nil {
		t.Fatal(err)
	}
	checkBlob(t, s, data)
}

// TestPartialOfAnySize: a size is what a manifest says, and may be anything.
func TestPartialOfAnySize(t *testing.T) {
	s := partialStore(t, t.TempDir())
	data, h, _ := partialData()
	p, err := s.Partial(t.Context(), h, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Fill(t.Context(), bytes.NewReader(data)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}
