package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// WriteFile makes the file at path whole or not at all: fill writes it under a
// temporary name in the same folder, which is then synced to disk and renamed. If
// anything fails the temporary file is removed and what was at path stays. Its mode is
// 0644 unless fill changes it. A
// temporary file that an earlier, killed run left is removed first.
func WriteFile(path string, fill func(*os.File) error) (err error) {
	dir, prefix := filepath.Dir(path), "."+filepath.Base(path)+".tmp-"
	if err := removeStaleTemps(dir, prefix, always); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	f, err := createTemp(dir, prefix)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	renamed := false
	defer func() {
		if !renamed {
			os.Remove(f.Name())
		}
		f.Close() // synced already where that matters
	}()
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := fill(f); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	renamed = true
	return syncDir(dir)
}

// syncDir makes a rename in the folder survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("syncing folder %s: %w", dir, err)
	}
	return nil
}
