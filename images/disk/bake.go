package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/uuid"

	"atoll/bundle"
)

// Image is what a disk image is made of.
type Image struct {
	// Lock is the lock that base and bundle were made from. All times of the image
	// derive from it, and all IDs from it and the first-boot configuration.
	Lock *bundle.Lock
	// Base is the operating system.
	Base *Base
	// Bundle is the path of the bundle, and Digest what it must have; if that is zero, any.
	Bundle string
	Digest v1.Hash
	// Ignition is the initramfs, a gzipped cpio, with the first-boot configuration.
	Ignition []byte
	// RootSize is the size of the root partition in bytes; 0 means 4 GiB. Its file
	// system is as large as the base's, and grows on the first boot.
	RootSize int64
}

const defaultRootSize = 4 * gib

// bundlePartition is the partition type of a bundle: our own, so that nothing takes
// it for a file system or for the place of the data partition.
const bundlePartition gpt.Type = "B3F1C2D6-5A7E-4C0D-9F4B-2F1E8A6D7C35"

// Bake writes the disk image to path, whole or not at all, in one pass. The same image
// gives the same bytes. The bundle is checked while it is copied: other content than
// its digests say is a [bundle.CorruptError], and a bundle of another lock an error
// that wraps [bundle.ErrStale]. Too little space for it is seen first.
// It returns the image's sha256, for which nothing is read again.
func Bake(ctx context.Context, path string, img Image, o *Options) (v1.Hash, error) {
	b, err := bundle.OpenTrusted(img.Bundle, bundle.Trust{Digest: img.Digest})
	if err != nil {
		return v1.Hash{}, fmt.Errorf("baking: %w", err)
	}
	defer b.Close()
	k, err := newBaker(ctx, img, b)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("baking: %w", err)
	}
	k.progress = o.progress("disk image")
	if err := bundle.WriteFile(path, k.write); err != nil {
		return v1.Hash{}, fmt.Errorf("baking: %w", err)
	}
	return k.sum.digest(), nil
}

// baker writes one image.
type baker struct {
	ctx    context.Context
	img    Image
	bundle *bundle.Bundle
	// id is a digest of what IDs derive from. Images of one lock that differ in their
	// first boot must not be taken for copies of each other.
	id string

	rootData            int64 // bytes of it that are no holes
	esp, root, payload  extent
	size, done, written int64 // of the image; behind us; to write in all
	progress            func(done, total int64)
	sum                 *imageSum
}

// extent is a partition's place in bytes.
type extent struct{ offset, size int64 }

// newBaker lays out the image.
func newBaker(ctx context.Context, img Image, b *bundle.Bundle) (*baker, error) {
	lock, err := img.Lock.Encode()
	if err != nil {
		return nil, err
	}
	if err := checkLock(lock, b); err != nil {
		return nil, err
	}
	if len(img.Ignition) == 0 {
		return nil, errors.New("there is no first-boot configuration")
	}
	info, err := os.Stat(img.Base.Path(rootFile))
	if err != nil {
		return nil, err
	}
	if img.RootSize == 0 {
		img.RootSize = defaultRootSize
	}
	if img.RootSize < info.Size() {
		return nil, fmt.Errorf("a root partition of %d MiB is too small for the base, which needs %d MiB", img.RootSize/mib, info.Size()/mib)
	}
	id := bundle.DigestOf(append(lock, bundle.DigestOf(img.Ignition).Hex...)).Hex
	k := &baker{ctx: ctx, img: img, bundle: b, id: id, sum: newImageSum()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		k.rootData = min(st.Blocks*512, info.Size())
	}
	end := int64(mib) // the table's room, and the alignment of all that follows
	for _, p := range []struct {
		e    *extent
		size int64
	}{{&k.esp, espSize}, {&k.root, img.RootSize}, {&k.payload, b.Size()}} {
		*p.e = extent{end, roundUp(p.size)}
		end += p.e.size
	}
	k.size = end + mib // the backup table
	return k, nil
}

// roundUp gives the next whole MiB.
func roundUp(n int64) int64 { return (n + mib - 1) / mib * mib }

// checkLock fails unless the bundle carries the lock.
func checkLock(lock []byte, b *bundle.Bundle) error {
	l, err := b.Lock()
	if err != nil {
		return err
	}
	have, err := l.Encode()
	if err != nil {
		return err
	}
	if !bytes.Equal(have, lock) {
		return fmt.Errorf("bundle %s was made from another lock: %w", b.Path(), bundle.ErrStale)
	}
	return nil
}

// guid returns an ID that is the same for the same lock and first-boot configuration.
func (k *baker) guid(of string) uuid.UUID {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte("atoll "+k.id+" "+of))
}

// write writes the image to the empty file.
func (k *baker) write(f *os.File) error {
	files, err := k.espFiles()
	if err != nil {
		return err
	}
	k.written = k.rootData + k.bundle.Size()
	for _, file := range files {
		k.written += file.size
	}
	if err := checkSpace(f, k.written+2*mib); err != nil {
		return err
	}
	if err := f.Truncate(k.size); err != nil {
		return err
	}
	// In the order of the image's bytes, but for the table: it is at both ends.
	if err := k.writeTable(f); err != nil {
		return fmt.Errorf("writing partition table: %w", err)
	}
	if err := k.writeESP(f, files); err != nil {
		return fmt.Errorf("writing ESP: %w", err)
	}
	if err := k.sum.read(k.ctx, f, k.root.offset); err != nil {
		return fmt.Errorf("reading ESP: %w", err)
	}
	if err := k.copyRoot(f); err != nil {
		return fmt.Errorf("copying root file system: %w", err)
	}
	k.sum.zeros(k.payload.offset)
	before := k.done
	_, err = k.bundle.CopyTo(k.ctx, io.MultiWriter(io.NewOffsetWriter(f, k.payload.offset), k.sum), func(done, _ int64) {
		k.step(before + done - k.done)
	})
	if err != nil {
		return err
	}
	k.sum.zeros(k.payload.offset + k.payload.size)
	if err := k.sum.read(k.ctx, f, k.size); err != nil {
		return fmt.Errorf("reading partition table: %w", err)
	}
	k.step(k.written - k.done)
	return nil
}

// step tells that n more bytes are written.
func (k *baker) step(n int64) {
	k.done += n
	k.progress(min(k.done, k.written), k.written)
}

// copyRoot copies the root file system. What is a hole there is one here.
func (k *baker) copyRoot(f *os.File) error {
	root, err := os.Open(k.img.Base.Path(rootFile))
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := root.Stat()
	if err != nil {
		return err
	}
	return eachBlock(k.ctx, root, 0, info.Size(), func(offset int64, block []byte) error {
		k.step(int64(len(block)))
		k.sum.zeros(k.root.offset + offset)
		k.sum.Write(block)
		_, err := f.WriteAt(block, k.root.offset+offset)
		return err
	})
}

// writeTable writes the partition table, at both ends.
func (k *baker) writeTable(f *os.File) error {
	t := &gpt.Table{
		LogicalSectorSize: sector, PhysicalSectorSize: sector,
		GUID:          k.guid("disk").String(),
		ProtectiveMBR: true,
	}
	for i, p := range []struct {
		name string
		kind gpt.Type
		at   extent
	}{
		{"atoll-esp", gpt.EFISystemPartition, k.esp},
		{"atoll-root", gpt.LinuxRootX86_64, k.root},
		{"atoll-bundle", bundlePartition, k.payload},
	} {
		t.Partitions = append(t.Partitions, &gpt.Partition{
			Index: i + 1, Name: p.name, Type: p.kind, GUID: k.guid(p.name).String(),
			Start: uint64(p.at.offset / sector), End: uint64((p.at.offset+p.at.size)/sector - 1), Size: uint64(p.at.size),
		})
	}
	w, err := file.New(f, false).Writable()
	if err != nil {
		return err
	}
	return t.Write(w, k.size)
}

// checkSpace fails if the file's file system has less than need bytes left.
func checkSpace(f *os.File, need int64) error {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("asking for free space: %w", err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return fmt.Errorf("%d MiB needed, %d MiB free: %w", need/mib+1, free/mib, syscall.ENOSPC)
	}
	return nil
}
