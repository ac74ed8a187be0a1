package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// flashBlock is how much is written at once, and flashWriters how many do so.
	flashBlock   = 4 * mib
	flashWriters = 4
	// minData is the least room for the data partition: SizeMinBytes= of 50-atoll-data.conf.
	minData = 2 * gib
)

// An UnfinishedError says that a disk was written to but has not got the whole image. It
// has no partition table then, so nothing starts from it.
type UnfinishedError struct {
	Device string
	Err    error
}

func (e *UnfinishedError) Error() string { return "flashing " + e.Device + ": " + e.Err.Error() }
func (e *UnfinishedError) Unwrap() error { return e.Err }

// Fits fails with a [TargetError] if the disk is too small for the image and the data
// partition that its first boot makes.
func (t *Target) Fits(m *RawImage) error {
	if need := m.Size + minData; t.Size < need {
		return &TargetError{t.Path, fmt.Sprintf("is too small: it has %d MiB, image and data need %d MiB", t.Size/mib, (need+mib-1)/mib), ""}
	}
	return nil
}

// Flash verifies the image and writes it to the disk, all of it: what is a hole in the
// image's file becomes zeros. Then it reads it back, past every cache of this machine, and
// compares. What makes a disk bootable, the partition table, comes last, when the rest
// is known to be right: until then the disk has none, neither this one nor what it had
// before, and the error is an [UnfinishedError].
func Flash(ctx context.Context, m *RawImage, t *Target, o *Options) (err error) {
	if err := t.Fits(m); err != nil {
		return err
	}
	if err := m.Verify(ctx, o); err != nil {
		return err
	}
	f, err := t.open()
	if err != nil {
		return fmt.Errorf("opening disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := &flasher{ctx: ctx, image: m, disk: f, sums: map[int64][]byte{}}
	if err := w.flash(t.Size, o); err != nil {
		return &UnfinishedError{t.Path, err}
	}
	// Partitions are of no use to this machine: what keeps it from seeing them is no error.
	// EINVAL is a disk of which it shows none.
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		o.log().Warn("reading the partition table of the new disk", "disk", t.Path, "err", err)
	}
	return nil
}

// flasher writes one image to one disk.
type flasher struct {
	ctx   context.Context
	image *RawImage
	disk  *os.File

	mu   sync.Mutex
	sums map[int64][]byte // of each block that was written, by its place; nil for zeros
}

func (w *flasher) flash(size int64, o *Options) error {
	head, tail := extent{0, mib}, extent{w.image.Size - mib, mib} // with the partition tables
	body := extent{mib, w.image.Size - 2*mib}
	// Firmware mends a partition table by the copy at the disk's end.
	if err := errors.Join(w.zero(head), w.zero(extent{size - mib, mib}), w.zero(tail), w.sync()); err != nil {
		return err
	}
	if err := w.each(body, o.progress("writing"), w.write); err != nil {
		return err
	}
	if err := w.sync(); err != nil {
		return err
	}
	if err := w.each(body, o.progress("reading back"), w.compare); err != nil {
		return err
	}
	for _, part := range []extent{tail, head} {
		if err := w.each(part, func(int64, int64) {}, w.write); err != nil {
			return err
		}
		if err := w.sync(); err != nil {
			return err
		}
		if err := w.each(part, func(int64, int64) {}, w.compare); err != nil {
			return errors.Join(err, w.zero(head), w.sync())
		}
	}
	return nil
}

func (w *flasher) sync() error {
	if err := w.disk.Sync(); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// zero makes the disk read zeros there, with whatever the disk has for that.
func (w *flasher) zero(e extent) error {
	mode := uint32(unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE)
	if err := unix.Fallocate(int(w.disk.Fd()), mode, e.offset, e.size); err != nil {
		return fmt.Errorf("writing zeros at %d MiB: %w", e.offset/mib, err)
	}
	return nil
}

// each calls do for every block of a part, several at once. The buffer is as long as the
// block and lies as O_DIRECT wants it; its content is anything.
func (w *flasher) each(part extent, progress func(done, total int64), do func(buf []byte, at int64) error) error {
	var next atomic.Int64
	next.Store(part.offset)
	end := part.offset + part.size
	var mu sync.Mutex // guards done, and its being told in order
	var done int64
	group, ctx := errgroup.WithContext(w.ctx)
	for range flashWriters {
		group.Go(func() error {
			buf, err := unix.Mmap(-1, 0, flashBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
			if err != nil {
				return err
			}
			defer unix.Munmap(buf)
			for {
				at := next.Add(flashBlock) - flashBlock
				if at >= end {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				block := buf[:min(flashBlock, end-at)]
				if err := do(block, at); err != nil {
					return err
				}
				mu.Lock()
				done += int64(len(block))
				progress(done, part.size)
				mu.Unlock()
			}
		})
	}
	return group.Wait()
}

// write writes a block of the image to the disk.
func (w *flasher) write(buf []byte, at int64) error {
	data, err := unix.Seek(int(w.image.f.Fd()), at, unix.SEEK_DATA)
	hole := errors.Is(err, unix.ENXIO) || err == nil && data >= at+int64(len(buf))
	if !hole {
		if _, err := io.ReadFull(io.NewSectionReader(w.image.f, at, int64(len(buf))), buf); err != nil {
			return fmt.Errorf("reading image: %w", err)
		}
		hole = bytes.Equal(buf, zeros[:len(buf)])
	}
	if hole {
		w.note(at, nil)
		return w.zero(extent{at, int64(len(buf))})
	}
	sum := sha256.Sum256(buf)
	w.note(at, sum[:])
	if _, err := w.disk.WriteAt(buf, at); err != nil {
		return fmt.Errorf("writing at %d MiB: %w", at/mib, err)
	}
	return nil
}

// compare reads a block back.
func (w *flasher) compare(buf []byte, at int64) error {
	if _, err := io.ReadFull(io.NewSectionReader(w.disk, at, int64(len(buf))), buf); err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	w.mu.Lock()
	want := w.sums[at]
	w.mu.Unlock()
	same := false
	if want == nil {
		same = bytes.Equal(buf, zeros[:len(buf)])
	} else {
		sum := sha256.Sum256(buf)
		same = bytes.Equal(sum[:], want)
	}
	if !same {
		return fmt.Errorf("what was written at %d MiB does not come back: the disk is broken, or smaller than it says", at/mib)
	}
	return nil
}

func (w *flasher) note(at int64, sum []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sums[at] = sum
}

var zeros [flashBlock]byte
