package disk_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"atoll/bundle"
	"atoll/images/disk"
)

const mib = 1 << 20

// newDisk makes a disk of a file, with a partition table at both ends from an earlier
// life and old data between, and gives its node and the file. It skips the test where loop
// devices cannot be made.
func newDisk(t *testing.T, size int64) (node, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	junk := bytes.Repeat([]byte("earlier life "), mib/13)
	err = f.Truncate(size)
	for at := int64(mib); at < size-2*mib; at += size / 20 {
		_, werr := f.WriteAt(junk, at)
		err = errors.Join(err, werr)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	judge(t, "sgdisk", "-n", "1:0:0", "-c", "1:atoll-bundle", path)
	if os.Geteuid() != 0 {
		t.Skip("only root can make loop devices")
	}
	out, err := exec.Command("losetup", "--find", "--show", path).Output()
	if err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
	node = strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "--detach", node).Run() })
	return node, path
}

func openImage(t *testing.T, path string) *disk.RawImage {
	t.Helper()
	m, err := disk.OpenImage(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func findTarget(t *testing.T, node string) *disk.Target {
	t.Helper()
	target, err := disk.FindTarget(node)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// content reads part of a disk that was written to through its node.
func content(t *testing.T, path string, at, size int64) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, size)
	if _, err := f.ReadAt(data, at); err != nil {
		t.Fatal(err)
	}
	return data
}

// sameAs fails unless the disk begins with the image.
func sameAs(t *testing.T, path, image string, size int64) {
	t.Helper()
	for at := int64(0); at < size; at += 16 * mib {
		n := min(16*mib, size-at)
		if !bytes.Equal(content(t, path, at, n), content(t, image, at, n)) {
			t.Fatalf("disk and image differ after %d MiB", at/mib)
		}
	}
}

// notBootable fails if the disk has a partition table, at its head or its end or where the
// image has its second one.
func notBootable(t *testing.T, path string, imageSize int64) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, info.Size() - mib, imageSize - mib} {
		if data := content(t, path, at, mib); bytes.Contains(data, []byte("EFI PART")) {
			t.Errorf("the disk has a partition table at %d MiB", at/mib)
		}
	}
	if !bytes.Equal(content(t, path, 0, mib), make([]byte, mib)) {
		t.Error("the disk's first MiB is not empty")
	}
}

func TestFlash(t *testing.T) {
	image := bake(t, newImage(t))
	m := openImage(t, image)
	node, path := newDisk(t, m.Size+2<<30+512) // whose end is at no whole MiB
	var steps []string
	err := disk.Flash(t.Context(), m, findTarget(t, node), &disk.Options{Progress: func(step string, done, total int64) {
		if done > total {
			t.Errorf("%s: %d of %d bytes", step, done, total)
		}
		if len(steps) == 0 || steps[len(steps)-1] != step {
			steps = append(steps, step)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(steps, ", "); got != "verifying image, writing, reading back" {
		t.Errorf("steps are %s", got)
	}
	sameAs(t, path, image, m.Size)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, path, info.Size()-mib, mib), make([]byte, mib)) {
		t.Error("the earlier partition table is still at the disk's end")
	}
}

func TestFlashIsCutShort(t *testing.T) {
	image := bake(t, newImage(t))
	m := openImage(t, image)
	for _, at := range []string{"writing", "reading back"} {
		t.Run(at, func(t *testing.T) {
			node, path := newDisk(t, m.Size+2<<30)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := disk.Flash(ctx, m, findTarget(t, node), &disk.Options{Progress: func(step string, _, _ int64) {
				if step == at {
					cancel()
				}
			}})
			var half *disk.UnfinishedError
			if !errors.As(err, &half) || !errors.Is(err, context.Canceled) || half.Device != node {
				t.Errorf("got %v, want an UnfinishedError that wraps that of the context", err)
			}
			notBootable(t, path, m.Size)
		})
	}
}

func TestFlashAfterKill(t *testing.T) {
	image := bake(t, newImage(t))
	m := openImage(t, image)
	node, path := newDisk(t, m.Size+2<<30)
	killAt(t, "writing\n", "ATOLL_TEST_FLASH="+image+"\n"+node)
	notBootable(t, path, m.Size)
	if err := disk.Flash(t.Context(), m, findTarget(t, node), nil); err != nil {
		t.Fatal(err)
	}
	sameAs(t, path, image, m.Size)
}

// flashForever flashes an image to a disk and stops in the middle of it.
func flashForever(what string) {
	image, node, _ := strings.Cut(what, "\n")
	m, err := disk.OpenImage(image)
	if err != nil {
		panic(err)
	}
	target, err := disk.FindTarget(node)
	if err != nil {
		panic(err)
	}
	err = disk.Flash(context.Background(), m, target, &disk.Options{Progress: func(step string, done, total int64) {
		if step == "writing" && done > total/2 {
			os.Stdout.WriteString("writing\n")
			sleepForever()
		}
	}})
	panic(err)
}

// TestFlashFindsBrokenDisk has a disk that does not keep what is written to it.
func TestFlashFindsBrokenDisk(t *testing.T) {
	m := openImage(t, bake(t, newImage(t)))
	node, path := newDisk(t, m.Size+2<<30)
	for _, at := range []int64{mib, m.Size / 2, m.Size - mib - 1} {
		broken := false
		err := disk.Flash(t.Context(), m, findTarget(t, node), &disk.Options{Progress: func(step string, done, total int64) {
			if step != "writing" || done != total || broken {
				return
			}
			broken = true
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			b := make([]byte, 1)
			_, rerr := f.ReadAt(b, at)
			b[0] ^= 1
			_, werr := f.WriteAt(b, at)
			if err := errors.Join(rerr, werr); err != nil {
				t.Error(err)
			}
		}})
		var half *disk.UnfinishedError
		if !errors.As(err, &half) || !strings.Contains(err.Error(), "does not come back") {
			t.Errorf("with a broken byte %d: got %v, want an UnfinishedError", at, err)
		}
		notBootable(t, path, m.Size)
	}
}

func TestFlashLeavesUsedDisksAlone(t *testing.T) {
	m := openImage(t, bake(t, newImage(t)))
	refused := func(t *testing.T, err error, want string) {
		t.Helper()
		var target *disk.TargetError
		if !errors.As(err, &target) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	t.Run("mounted", func(t *testing.T) {
		node, _ := newDisk(t, m.Size+2<<30)
		judge(t, "mke2fs", "-q", "-F", node, "64M")
		dir := t.TempDir()
		if err := unix.Mount(node, dir, "ext2", 0, ""); err != nil {
			t.Skipf("cannot mount here: %v", err)
		}
		_, err := disk.FindTarget(node)
		if err := unix.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
		refused(t, err, "is mounted at "+dir)
	})
	t.Run("held by another program", func(t *testing.T) {
		node, path := newDisk(t, m.Size+2<<30)
		target := findTarget(t, node)
		f, err := os.OpenFile(node, os.O_RDWR|unix.O_EXCL, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		before := content(t, path, 0, mib)
		refused(t, disk.Flash(t.Context(), m, target, nil), "in use by another program")
		if !bytes.Equal(before, content(t, path, 0, mib)) {
			t.Error("the disk was written to")
		}
	})
	t.Run("too small", func(t *testing.T) {
		node, _ := newDisk(t, m.Size+2<<30-mib)
		refused(t, disk.Flash(t.Context(), m, findTarget(t, node), nil), "is too small")
	})
}

func TestFlashVerifiesFirst(t *testing.T) {
	img := newImage(t)
	image := bake(t, img)
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(img.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	_, node, err := b.File(bundle.ArtifactNode, "atoll")
	if err != nil {
		t.Fatal(err)
	}
	offset, _, _ := b.Section(node.Digest)
	data[640*mib+mib+offset] ^= 1 // after the table, the ESP and a root of 128 MiB
	if err := os.WriteFile(image, data, 0o644); err != nil {
		t.Fatal(err)
	}
	m := openImage(t, image)
	var corrupt *bundle.CorruptError
	if err := m.Verify(t.Context(), nil); !errors.As(err, &corrupt) {
		t.Errorf("got %v, want a CorruptError", err)
	}
	disk0, path := newDisk(t, m.Size+2<<30)
	before := content(t, path, 0, mib)
	if err := disk.Flash(t.Context(), m, findTarget(t, disk0), nil); !errors.As(err, &corrupt) {
		t.Errorf("got %v, want a CorruptError", err)
	}
	if !bytes.Equal(before, content(t, path, 0, mib)) {
		t.Error("the disk was written to")
	}
}

// FuzzOpenImage opens images whose first sectors are anything.
func FuzzOpenImage(f *testing.F) {
	sound := table(f)
	f.Add(sound, int64(8))
	f.Add([]byte("QFI\xfb"), int64(8))
	for _, at := range []int{512 + 72, 512 + 80, 512 + 84, 1024 + 32} { // sizes and places
		odd := bytes.Clone(sound)
		binary.LittleEndian.PutUint32(odd[at:], 0)
		f.Add(sealed(odd), int64(8))
	}
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC) // a file, but quick
	if err != nil {
		f.Fatal(err)
	}
	image := os.NewFile(uintptr(fd), "image")
	defer image.Close()
	f.Fuzz(func(t *testing.T, head []byte, size int64) {
		if err := image.Truncate(0); err != nil {
			t.Fatal(err)
		}
		_, err := image.WriteAt(sealed(head), 0)
		if err := errors.Join(err, image.Truncate((size%64+64)%64*mib)); err != nil {
			t.Fatal(err)
		}
		m, err := disk.OpenImage(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			return
		}
		defer m.Close()
		if err := m.Verify(t.Context(), nil); err == nil {
			t.Error("an image without a bundle is sound")
		}
	})
}

// table is the partition table, with the sectors before it, of an image of 8 MiB.
func table(tb testing.TB) []byte {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "image")
	if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 8*mib)); err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command("/usr/sbin/sgdisk", "-n", "1:2048:+1M", "-c", "1:atoll-esp", "-n", "2:0:+1M", "-c", "2:atoll-root",
		"-n", "3:0:+1M", "-c", "3:atoll-bundle", "-t", "3:B3F1C2D6-5A7E-4C0D-9F4B-2F1E8A6D7C35", path)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Skipf("no sgdisk: %v\n%s", err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return data[:1024+128*128]
}

// sealed gives a table's head right checksums, as whoever wants to be believed does.
func sealed(head []byte) []byte {
	if len(head) < 1024+128*128 {
		return head
	}
	head = bytes.Clone(head)
	le := binary.LittleEndian
	le.PutUint32(head[512+88:], crc32.ChecksumIEEE(head[1024:1024+128*128]))
	le.PutUint32(head[512+16:], 0)
	le.PutUint32(head[512+16:], crc32.ChecksumIEEE(head[512:512+92]))
	return head
}
