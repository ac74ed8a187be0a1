package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// sparseBlock is the grain of reading sparse files. One of zeros counts as a hole.
const sparseBlock = 256 << 10

// eachBlock calls f with each block of the file, from a multiple of the grain up to but not
// including to, that is not all zeros; holes are not read. The slice is only good during the call.
func eachBlock(ctx context.Context, file *os.File, from, to int64, f func(offset int64, block []byte) error) error {
	buf := make([]byte, sparseBlock)
	for pos := from; pos < to; {
		data, err := unix.Seek(int(file.Fd()), pos, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) {
			return nil // only holes follow
		}
		if err != nil {
			return fmt.Errorf("looking for holes: %w", err)
		}
		if pos = data / sparseBlock * sparseBlock; pos >= to {
			return nil
		}
		n, err := file.ReadAt(buf[:min(sparseBlock, to-pos)], pos)
		if err != nil && !(err == io.EOF && int64(n) == to-pos) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			if err := f(pos, buf[:n]); err != nil {
				return err
			}
		}
		pos += int64(n)
	}
	return nil
}

// sumSparse is a digest of a file's size and content that costs nothing for holes.
func sumSparse(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%d bytes\n", info.Size())
	err = eachBlock(context.Background(), f, 0, info.Size(), func(offset int64, block []byte) error {
		fmt.Fprintf(sum, "%d bytes at %d\n", len(block), offset)
		_, err := sum.Write(block)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// syncTree makes the files of a folder survive a power cut.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncPath(path)
	})
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
