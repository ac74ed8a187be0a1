package main

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Content of the file: this many random bytes, then their SHA-256.
const volumeBytes = 1 << 20

// writeRead proves that a volume keeps what is written: a file that an earlier
// run left must be whole, then a new one is written, synced and read back.
func writeRead(dir string) error {
	path := filepath.Join(dir, "atoll-probe")
	switch err := check(path); {
	case err == nil:
		fmt.Println("the file of an earlier run is whole")
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("checking the file of an earlier run: %w", err)
	}
	if err := write(path); err != nil {
		return fmt.Errorf("writing volume: %w", err)
	}
	if err := check(path); err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	return nil
}

func write(path string) error {
	data := make([]byte, volumeBytes)
	if _, err := rand.Read(data); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(append(data, sum[:]...)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func check(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(data) != volumeBytes+sha256.Size {
		return fmt.Errorf("%s has %d bytes, want %d", path, len(data), volumeBytes+sha256.Size)
	}
	if sum := sha256.Sum256(data[:volumeBytes]); string(sum[:]) != string(data[volumeBytes:]) {
		return fmt.Errorf("%s has other bytes than were written", path)
	}
	return nil
}
