package disk_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"atoll/bundle"
	"atoll/bundle/bundletest"
	"atoll/images/disk"
)

// TestMain lets a test run this binary as a bake or flash that never ends.
func TestMain(m *testing.M) {
	if what := os.Getenv("ATOLL_TEST_FLASH"); what != "" {
		flashForever(what)
	}
	if dir := os.Getenv("ATOLL_TEST_BAKE"); dir != "" {
		bakeForever(dir)
	}
	os.Exit(m.Run())
}

// fakeBase makes a base of small files; its root is a real ext4 made by mke2fs.
func fakeBase(t *testing.T, dir string) *disk.Base {
	t.Helper()
	b := &disk.Base{Dir: dir, Key: "test"}
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.MkdirAll(filepath.Join(tree, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string]string{
		filepath.Join(tree, "etc/hostname"): "box\n",
		b.Path("vmlinuz"):                   strings.Repeat("kernel ", 1<<17),
		b.Path("initrd.img"):                strings.Repeat("initrd ", 1<<18),
		b.Path("systemd-bootx64.efi"):       "loader",
	} {
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	judge(t, "mke2fs", "-q", "-t", "ext4", "-d", tree, b.Path("root.ext4"), "64M")
	return b
}

// judge runs a foreign tool that must be content, and skips the test where it is missing.
func judge(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func newImage(t *testing.T) disk.Image {
	t.Helper()
	f := bundletest.New(t)
	f.Lab(t)
	return disk.Image{Lock: f.Lock, Base: fakeBase(t, t.TempDir()), Bundle: f.Pack(t), Ignition: []byte("ignition"), RootSize: 128 << 20}
}

func bake(t *testing.T, img disk.Image) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	got, err := disk.Bake(t.Context(), path, img, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want, _, _ := strings.Cut(judge(t, "sha256sum", path), " "); got.Hex != want {
		t.Errorf("digest of the image is %s, sha256sum says %s", got, want)
	}
	again, err := disk.Sum(t.Context(), path, func(int64, int64) {})
	if err != nil || again != got {
		t.Errorf("Sum says %s, %v; want %s", again, err, got)
	}
	return path
}

// partitions cuts the image's partitions out into files.
func partitions(t *testing.T, image string) []string {
	t.Helper()
	d, err := diskfs.Open(image, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	table, err := d.GetPartitionTable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var paths []string
	for _, p := range table.(*gpt.Table).Partitions {
		if p.Type == gpt.Unused {
			continue
		}
		path := filepath.Join(t.TempDir(), p.Name)
		out, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, io.NewSectionReader(f, p.GetStart(), p.GetSize())); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

func TestBakeIsSound(t *testing.T) {
	img := newImage(t)
	image := bake(t, img)
	if out := judge(t, "sgdisk", "-v", image); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk is not content:\n%s", out)
	}
	parts := partitions(t, image)
	if len(parts) != 3 {
		t.Fatalf("got partitions %v, want three", parts)
	}
	judge(t, "fsck.vfat", "-n", parts[0])
	judge(t, "e2fsck", "-fn", parts[1])
	want, err := os.ReadFile(img.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(got, want) || filepath.Base(parts[2]) != "atoll-bundle" {
		t.Error("the third partition is not the bundle")
	}
	b, err := bundle.Open(parts[2]) // with the bytes after its end
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
	listing := judge(t, "mdir", "-/", "-b", "-i", parts[0], "::")
	for _, name := range []string{"EFI/BOOT/BOOTX64.EFI", "loader/loader.conf", "loader/entries/atoll.conf", "loader/entries/atoll-firstboot.conf"} {
		if !strings.Contains(listing, "::/"+name) {
			t.Errorf("the ESP lacks %s:\n%s", name, listing)
		}
	}
	// The root file system is that of the disk with the second partition's ID.
	info := judge(t, "sgdisk", "-i", "2", image)
	_, id, _ := strings.Cut(info, "Partition unique GUID: ")
	id, _, _ = strings.Cut(id, "\n")
	for _, name := range []string{"atoll.conf", "atoll-firstboot.conf"} {
		entry := judge(t, "mtype", "-i", parts[0], "::/loader/entries/"+name)
		if want := "options atoll.root=" + strings.ToLower(id) + " root=/dev/disk/atoll/root rw "; !strings.Contains(entry, want) {
			t.Errorf("%s lacks %q:\n%s", name, want, entry)
		}
	}
	kernel := judge(t, "mtype", "-i", parts[0], "::/atoll/vmlinuz")
	if kernel != strings.Repeat("kernel ", 1<<17) {
		t.Error("the kernel on the ESP is not the base's")
	}
}

func TestBakeTwiceIsTheSame(t *testing.T) {
	img := newImage(t)
	var sums [2][sha256.Size]byte
	for i := range sums {
		data, err := os.ReadFile(bake(t, img))
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(data)
	}
	if sums[0] != sums[1] {
		t.Error("two images of the same input differ")
	}
	img.Lock.Epoch = img.Lock.Epoch.AddDate(0, 0, 1)
	if _, err := disk.Bake(t.Context(), filepath.Join(t.TempDir(), "disk.raw"), img, nil); !errors.Is(err, bundle.ErrStale) {
		t.Errorf("with another lock: got %v, want ErrStale", err)
	}
}

// TestBakeIDs: the node tells disks apart by the IDs of their partitions.
func TestBakeIDs(t *testing.T) {
	img := newImage(t)
	ids := func() string {
		var all []string
		for line := range strings.Lines(judge(t, "sgdisk", "-i", "2", bake(t, img))) {
			if strings.HasPrefix(line, "Partition unique GUID") {
				all = append(all, line)
			}
		}
		return strings.Join(all, "")
	}
	same := ids()
	if ids() != same || same == "" {
		t.Error("the same image has other IDs")
	}
	img.Ignition = []byte("another first boot")
	if ids() == same {
		t.Error("images of one lock with different first boots have the same IDs")
	}
}

func TestBakeRefuses(t *testing.T) {
	damaged := func(img *disk.Image) { // in the node's program
		b, err := bundle.Open(img.Bundle)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		_, f, err := b.File(bundle.ArtifactNode, "atoll")
		if err != nil {
			t.Fatal(err)
		}
		at, _, _ := b.Section(f.Digest)
		data, err := os.ReadFile(img.Bundle)
		if err != nil {
			t.Fatal(err)
		}
		data[at] ^= 1
		if err := os.WriteFile(img.Bundle, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var corrupt *bundle.CorruptError
	for _, tc := range []struct {
		name   string
		change func(*disk.Image)
		want   func(error) bool
	}{
		{"damaged bundle", damaged, func(err error) bool { return errors.As(err, &corrupt) }},
		{"small root", func(img *disk.Image) { img.RootSize = 1 << 20 }, func(err error) bool { return strings.Contains(err.Error(), "too small") }},
		{"no first boot", func(img *disk.Image) { img.Ignition = nil }, func(err error) bool { return strings.Contains(err.Error(), "first-boot") }},
		{"another bundle", func(img *disk.Image) { img.Digest = bundle.DigestOf(nil) }, func(err error) bool { return errors.As(err, &corrupt) }},
		{"no bundle", func(img *disk.Image) { img.Bundle += ".gone" }, func(err error) bool { return errors.Is(err, os.ErrNotExist) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			img := newImage(t)
			tc.change(&img)
			dir := t.TempDir()
			_, err := disk.Bake(t.Context(), filepath.Join(dir, "disk.raw"), img, nil)
			if err == nil || !tc.want(err) {
				t.Errorf("got %v", err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left %v behind", left)
			}
		})
	}
}

// bakeForever bakes the image described in dir and stops in the middle of it.
func bakeForever(dir string) {
	text, err := os.ReadFile(filepath.Join(dir, "lock"))
	if err != nil {
		panic(err)
	}
	lock, err := bundle.ParseLock("lock", text)
	if err != nil {
		panic(err)
	}
	img := disk.Image{Lock: lock, Base: &disk.Base{Dir: filepath.Join(dir, "base"), Key: "test"}, Bundle: filepath.Join(dir, "bundle.tar"),
		Ignition: []byte("ignition"), RootSize: 128 << 20}
	_, err = disk.Bake(context.Background(), filepath.Join(dir, "disk.raw"), img, &disk.Options{Progress: func(string, int64, int64) {
		os.Stdout.WriteString("baking\n")
		sleepForever()
	}})
	panic(err)
}

// sleepForever does not select: where nothing else runs that is a deadlock, and ends the
// process.
func sleepForever() { time.Sleep(time.Hour) }

// killAt runs this binary with a variable, which says what it does, and kills it with -9
// once it has written the word.
func killAt(t *testing.T, word, variable string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len(word))); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // killed
}

func TestBakeAfterKill(t *testing.T) {
	img := newImage(t)
	dir := t.TempDir()
	lock, err := img.Lock.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "lock"), lock, 0o644), os.Rename(img.Bundle, filepath.Join(dir, "bundle.tar")),
		os.Rename(img.Base.Dir, filepath.Join(dir, "base"))); err != nil {
		t.Fatal(err)
	}
	killAt(t, "baking\n", "ATOLL_TEST_BAKE="+dir)
	path := filepath.Join(dir, "disk.raw")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a killed bake left something under the final name: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".disk.raw*")); len(left) != 1 {
		t.Fatalf("the bake was not killed in the middle: %v", left)
	}
	img.Bundle, img.Base.Dir = filepath.Join(dir, "bundle.tar"), filepath.Join(dir, "base")
	if _, err := disk.Bake(t.Context(), path, img, nil); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".disk.raw*")); len(left) != 0 {
		t.Errorf("left %v behind", left)
	}
}
