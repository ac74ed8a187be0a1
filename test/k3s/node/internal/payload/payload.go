// Package payload finds the helper programs that the build appended to the k3s binary, and unpacks them to
// /var/lib/rancher/k3s/data/<hash>/bin, as k3s does with its own.
//
// The binary ends in: a zstd-compressed tar, its length (8 bytes, big endian), its SHA-256 (32 bytes), Magic.
package payload

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"atoll/test/k3s/node/internal/files"
)

// Magic ends a binary that has a payload.
const Magic = "ATOLLK3S"

const trailerLen = 8 + sha256.Size + len(Magic)

// Unpack makes sure that dataDir/<hash>/bin holds the payload of the binary at exe and returns that folder;
// dataDir/current points at <hash>.
func Unpack(exe, dataDir string) (string, error) {
	f, err := os.Open(exe)
	if err != nil {
		return "", fmt.Errorf("unpacking: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	tarball, sum, err := find(f)
	if err != nil {
		return "", fmt.Errorf("unpacking %s: %w", exe, err)
	}
	hash := hex.EncodeToString(sum)
	dir := filepath.Join(dataDir, hash)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := unpack(tarball, sum, dir); err != nil {
			return "", fmt.Errorf("unpacking %s: %w", exe, err)
		}
	}
	if err := point(filepath.Join(dataDir, "current"), hash); err != nil {
		return "", err
	}
	return filepath.Join(dir, "bin"), files.SyncDir(dataDir)
}

// Link makes dir, with a symbolic link to each of the named programs in bin. What else is in dir stays.
func Link(dir, bin string, names ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("linking programs: %w", err)
	}
	for _, name := range names {
		if err := point(filepath.Join(dir, name), filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	return files.SyncDir(dir)
}

// point makes a symbolic link point at a target, whatever it pointed at before.
func point(link, target string) error {
	if old, err := os.Readlink(link); err == nil && old == target {
		return nil
	}
	tmp := link + ".tmp"
	if err := errors.Join(remove(tmp), os.Symlink(target, tmp)); err != nil {
		return fmt.Errorf("pointing at %s: %w", target, err)
	}
	if err := os.Rename(tmp, link); err != nil {
		return fmt.Errorf("pointing at %s: %w", target, err)
	}
	return nil
}

// find returns the payload and its recorded SHA-256.
func find(f *os.File) (*io.SectionReader, []byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	trailer := make([]byte, trailerLen)
	if _, err := f.ReadAt(trailer, info.Size()-int64(trailerLen)); err != nil {
		return nil, nil, err
	}
	if string(trailer[8+sha256.Size:]) != Magic {
		return nil, nil, errors.New("no payload: this binary was not finished by the lab k3s build")
	}
	length := int64(binary.BigEndian.Uint64(trailer))
	start := info.Size() - int64(trailerLen) - length
	if length < 0 || start < 0 {
		return nil, nil, errors.New("the payload's length is wrong")
	}
	return io.NewSectionReader(f, start, length), trailer[8 : 8+sha256.Size], nil
}

// unpack writes the tar under a temporary name, checks its checksum, syncs and renames.
func unpack(r *io.SectionReader, sum []byte, dir string) error {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), sum) {
		return errors.New("the payload's checksum is wrong: the binary is damaged")
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return err
	}
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil { // of an interrupted start
		return err
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	tr := tar.NewReader(z)
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := writeEntry(filepath.Join(tmp, filepath.Clean("/"+hdr.Name)), hdr, tr); err != nil {
			return err
		}
	}
	if err := errors.Join(files.SyncDir(filepath.Join(tmp, "bin")), files.SyncDir(tmp)); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

func writeEntry(path string, hdr *tar.Header, r io.Reader) error {
	switch hdr.Typeflag {
	case tar.TypeDir:
		return os.MkdirAll(path, 0o755)
	case tar.TypeSymlink:
		return os.Symlink(hdr.Linkname, path)
	case tar.TypeReg:
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, hdr.FileInfo().Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Sync(), f.Close())
	}
	return fmt.Errorf("entry %s: unexpected type %q", hdr.Name, hdr.Typeflag)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
