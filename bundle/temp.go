package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// createTemp makes a temporary file whose name starts with prefix and locks it, so
// that removeStaleTemps can tell it from one whose writer was killed. The lock goes
// when the file is closed or its process dies: rename it before closing it. Its mode is
// perm less the umask, from the first moment on, which os.CreateTemp cannot do.
func createTemp(dir, prefix string, perm fs.FileMode) (*os.File, error) {
	for {
		name := filepath.Join(dir, prefix+strconv.FormatUint(rand.Uint64(), 36))
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		owned, err := lockTemp(f)
		if err != nil {
			return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
		if owned {
			return f, nil
		}
		f.Close()
	}
}

// lockTemp is false if, before the lock was held, another process took the file for
// a stale one and removed it.
func lockTemp(f *os.File) (bool, error) {
	if err := flock(f, syscall.LOCK_EX); err != nil {
		return false, err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return false, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	return st.Nlink > 0, nil
}

// tryLockNamed locks f unless another has it locked. It is false too if the file's name
// has gone or belongs to another file: until a file is locked, others may rename it.
func tryLockNamed(f *os.File) (bool, error) {
	if err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return false, nil
		}
		return false, err
	}
	named, err := os.Lstat(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	return os.SameFile(named, info), nil
}

// removeStaleTemps removes what is in dir under the prefix and is locked by no living
// process, as a file of createTemp is, if stale says so too. What this user may not
// remove stays.
func removeStaleTemps(dir, prefix string, stale func(*os.File) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("removing stale files: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) || !e.Type().IsRegular() {
			continue
		}
		if err := removeStaleTemp(filepath.Join(dir, e.Name()), stale); err != nil {
			return fmt.Errorf("removing stale files: %w", err)
		}
	}
	return nil
}

// always is for files that are stale once their process has gone.
func always(*os.File) bool { return true }

func removeStaleTemp(path string, stale func(*os.File) bool) error {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if owned, err := tryLockNamed(f); err != nil || !owned || !stale(f) {
		return err
	}
	err = os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("locking %s: %w", f.Name(), err)
		}
	}
}
