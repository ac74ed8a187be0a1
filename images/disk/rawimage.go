package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"atoll/bundle"
)

// RawImage is a disk image that [Bake] wrote, or at least looks like one.
type RawImage struct {
	// Size is in bytes.
	Size int64

	f       *os.File
	payload extent // the bundle
}

// An ImageError says that a file is no disk image that Atoll made.
type ImageError struct {
	Path string
	Err  error
}

func (e *ImageError) Error() string { return e.Path + " is no disk image of Atoll's: " + e.Err.Error() }
func (e *ImageError) Unwrap() error { return e.Err }

// OpenImage opens a raw disk image and reads its partition table. A file that is none
// gives an [ImageError]. The content is for [RawImage.Verify] to check.
func OpenImage(path string) (*RawImage, error) {
	f, err := bundle.OpenRegular(path)
	if err != nil {
		return nil, fmt.Errorf("opening image: %w", err)
	}
	m := &RawImage{f: f}
	if err := m.read(); err != nil {
		f.Close()
		return nil, &ImageError{path, err}
	}
	return m, nil
}

// Close closes the image's file.
func (m *RawImage) Close() error { return m.f.Close() }

// Path is the file that the image was opened from.
func (m *RawImage) Path() string { return m.f.Name() }

// read finds size and partitions.
func (m *RawImage) read() error {
	info, err := m.f.Stat()
	if err != nil {
		return err
	}
	m.Size = info.Size()
	if err := checkHeader(m.f, m.Size); err != nil {
		return err
	}
	table, err := gpt.Read(file.New(m.f, true), sector, sector)
	if err != nil {
		return fmt.Errorf("reading its partition table: %w", err)
	}
	if table.RecoveredFromBackup {
		return errors.New("its partition table is damaged")
	}
	found := map[string]bool{}
	for _, p := range table.Partitions {
		if p.Start < mib/sector || p.End < p.Start || p.End >= uint64(m.Size-mib)/sector {
			return fmt.Errorf("its partition %q is not within it", printable(p.Name))
		}
		if p.Type == bundlePartition {
			m.payload = extent{int64(p.Start) * sector, int64(p.End-p.Start+1) * sector}
		}
		found[p.Name] = true
	}
	for _, name := range []string{"atoll-esp", "atoll-root", "atoll-bundle"} {
		if !found[name] {
			return fmt.Errorf("it has no partition %s", name)
		}
	}
	if m.payload.size == 0 {
		return errors.New("it has no bundle")
	}
	return nil
}

// checkHeader fails unless the header of the partition table (UEFI 5.3.2) is as Bake
// writes it for an image of that size. What reads the table believes its sizes.
func checkHeader(f io.ReaderAt, size int64) error {
	if size%mib != 0 || size < 4*mib {
		return fmt.Errorf("it has %d bytes, and not whole MiB", size)
	}
	header := make([]byte, sector)
	if _, err := f.ReadAt(header, sector); err != nil {
		return err
	}
	le := binary.LittleEndian
	switch {
	case !strings.HasPrefix(string(header), "EFI PART"):
		return errors.New("it has no partition table")
	case le.Uint64(header[32:]) != uint64(size/sector-1):
		return errors.New("it is cut short, or longer than it was made")
	case le.Uint64(header[24:]) != 1, le.Uint64(header[72:]) != 2, le.Uint32(header[80:]) != 128, le.Uint32(header[84:]) != 128:
		return errors.New("its partition table is damaged")
	}
	return nil
}

// Verify fails unless the image is as it was made. It is all that an image must pass
// before any of it is written to a disk: every blob of its bundle has its digest
// ([bundle.CorruptError]), and nothing that its lock names is missing
// ([bundle.ErrIncomplete]).
func (m *RawImage) Verify(ctx context.Context, o *Options) error {
	progress := o.progress("verifying image")
	b, err := bundle.OpenIn(m.f, m.payload.offset, m.payload.size)
	if err != nil {
		return &ImageError{m.Path(), err}
	}
	defer b.Close()
	return b.Verify(ctx, progress)
}
