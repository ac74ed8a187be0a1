package bundle

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// A NotRegularError says that there is something at a path that must be a regular file:
// a device, a pipe, a socket, a folder, or a symbolic link to write through.
type NotRegularError struct {
	Path string
	Mode fs.FileMode // its type
	Link string      // where it leads, if it is a symbolic link
}

func (e *NotRegularError) Error() string {
	what := "no regular file"
	switch {
	case e.Mode.IsDir():
		what = "a folder"
	case e.Mode&fs.ModeSymlink != 0:
		return fmt.Sprintf("%s is a symbolic link to %s, not a regular file", e.Path, e.Link)
	case e.Mode&fs.ModeCharDevice != 0:
		what = "a character device"
	case e.Mode&fs.ModeDevice != 0:
		what = "a block device"
	case e.Mode&fs.ModeNamedPipe != 0:
		what = "a pipe"
	case e.Mode&fs.ModeSocket != 0:
		what = "a socket"
	}
	return fmt.Sprintf("%s is %s, not a regular file", e.Path, what)
}

// IsBlockDevice says that what is there is a disk, or a part of one.
func (e *NotRegularError) IsBlockDevice() bool {
	return e.Mode&fs.ModeDevice != 0 && e.Mode&fs.ModeCharDevice == 0
}

// OpenRegular opens a file for reading that a user named. It never waits: whatever is no
// regular file, or a link to one, is a [NotRegularError].
func OpenRegular(path string) (*os.File, error) { return openIf(path, fs.FileMode.IsRegular) }

// openIf opens what is of a kind that is wanted.
func openIf(path string, wanted func(fs.FileMode) bool) (*os.File, error) {
	check := func(info fs.FileInfo, err error) error {
		if err == nil && !wanted(info.Mode()) {
			err = &NotRegularError{Path: path, Mode: info.Mode().Type()}
		}
		return err
	}
	// Asked before too: merely to open some devices does something.
	if err := check(os.Stat(path)); err != nil {
		return nil, err
	}
	// It may have become a pipe since: do not wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := check(f.Stat()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ReadRegular reads a file that a user named, as [OpenRegular] opens it, and refuses one of
// more than limit bytes.
func ReadRegular(path string, limit int64) ([]byte, error) {
	f, err := OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1)) // it may grow
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}
