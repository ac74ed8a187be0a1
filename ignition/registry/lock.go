package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// lockRetry is how often a lock is asked for that another process has: flock(2) itself
// would not stop waiting when the request is over.
const lockRetry = 20 * time.Millisecond

// folderLock is held on a registry's folder.
type folderLock struct{ f *os.File }

// lockFolder waits for the lock of a folder: shared by changes, exclusive for a collection.
func lockFolder(ctx context.Context, dir string, exclusive bool) (*folderLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return &folderLock{f}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", f.Name(), err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("locking %s: %w", f.Name(), ctx.Err()), f.Close())
		case <-time.After(lockRetry):
		}
	}
}

func (l *folderLock) unlock() { l.f.Close() } // nothing was written that could be lost

// collected tells the process that serves the folder that files are gone which it has counted.
func (l *folderLock) collected() error {
	_, err := l.f.WriteAt([]byte(fmt.Sprintf("%020d", time.Now().UnixNano())), 0)
	return err
}

// generation changes with every collection.
func (l *folderLock) generation() int64 {
	b := make([]byte, 20)
	n, _ := l.f.ReadAt(b, 0) // empty before the first collection
	g, _ := strconv.ParseInt(string(b[:n]), 10, 64)
	return g
}
