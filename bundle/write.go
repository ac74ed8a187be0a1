package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// WriteFile makes the file at path whole or not at all: fill writes it under a
// temporary name in the same folder, which is then synced to disk and renamed. If
// anything fails the temporary file is removed and what was at path stays. Its mode is
// what the umask leaves, less what the file that it replaces denied. Anything else at path
// than a regular file stays, and is an error: see [CheckOutput]. A
// temporary file that an earlier, killed run left is removed first.
func WriteFile(path string, fill func(*os.File) error) error {
	return writeFile(path, 0o666, fill)
}

// WriteSecret is [WriteFile] for a file that its owner alone may read, at any time.
func WriteSecret(path string, fill func(*os.File) error) error {
	return writeFile(path, 0o600, fill)
}

func writeFile(path string, perm fs.FileMode, fill func(*os.File) error) error {
	old, err := output(path)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if old != nil {
		perm &= old.Mode()
	}
	dir, prefix := filepath.Dir(path), "."+filepath.Base(path)+".tmp-"
	if err := removeStaleTemps(dir, prefix, always); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	f, err := createTemp(dir, prefix, perm)
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
	if err := fill(f); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if _, err := output(path); err != nil { // filling may take long
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	renamed = true
	return syncDir(dir)
}

// CheckOutput says whether a file can be written to path by [WriteFile]: there must be
// nothing or a regular file, else it is a [NotRegularError]. A symbolic link is refused
// too. To replace it is not what its owner meant; to follow it would let who may write in
// a folder for all, like /tmp, choose what file of ours is overwritten.
func CheckOutput(path string) error {
	_, err := output(path)
	return err
}

// output is the regular file at path; nil if there is nothing.
func output(path string) (fs.FileInfo, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Mode().IsRegular():
		return info, nil
	}
	odd := &NotRegularError{Path: path, Mode: info.Mode().Type()}
	if odd.Mode == fs.ModeSymlink {
		odd.Link, err = os.Readlink(path)
	}
	return nil, errors.Join(odd, err)
}

// CreateLog opens a file for what is written while it happens: a new or emptied one, or a
// terminal or a pipe that somebody reads. Disks, folders and sockets are a
// [NotRegularError].
func CreateLog(path string) (*os.File, error) {
	usable := func(info fs.FileInfo, err error) error {
		if err != nil {
			return err
		}
		switch info.Mode().Type() {
		case 0, fs.ModeNamedPipe, fs.ModeDevice | fs.ModeCharDevice:
			return nil
		}
		return &NotRegularError{Path: path, Mode: info.Mode().Type()}
	}
	// Asked before too: that a disk was open for writing has it read anew.
	if err := usable(os.Stat(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0o666)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err = usable(info, err); err == nil && info.Mode().IsRegular() {
		err = f.Truncate(0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
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
