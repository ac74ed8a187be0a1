package disk

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Target is a whole disk of this machine that nothing uses, so that an image may be
// written to it.
type Target struct {
	// Path is the disk's node, by the kernel's name of it, whatever link it was found by.
	Path string
	// Model and Serial are what the disk says of itself, if it does, safe to print.
	Model, Serial string
	// Size is in bytes.
	Size int64

	dev uint64 // of the node, so that it is the same disk when it is opened
}

// A TargetError says why an image cannot be written to a device.
type TargetError struct {
	Device string
	Reason string
	// Advice is what to do about it, if there is something.
	Advice string
}

func (e *TargetError) Error() string { return e.Device + " " + e.Reason }

// machine is where the kernel tells of disks and of what uses them.
type machine struct{ sys, proc string }

var thisMachine = machine{sys: "/sys", proc: "/proc"}

// FindTarget finds the disk with the node path, or a link to it. What is no whole disk,
// what is in use, by a mount, as swap, by LVM, RAID, multipath or encryption, and what
// cannot be written to is a [TargetError].
func FindTarget(path string) (*Target, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &TargetError{path, "does not exist", "lsblk lists the disks of this machine"}
	}
	if err != nil {
		return nil, fmt.Errorf("looking at %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil {
		return nil, fmt.Errorf("looking at %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, &TargetError{path, "is no disk", "lsblk lists the disks of this machine"}
	}
	t, err := thisMachine.inspect(real, st.Rdev)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// inspect looks at the block device with the node path and the number dev.
func (m machine) inspect(path string, dev uint64) (*Target, error) {
	refuse := func(advice, reason string, args ...any) error {
		return &TargetError{path, fmt.Sprintf(reason, args...), advice}
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(m.sys, "dev/block", fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))))
	if err != nil {
		return nil, fmt.Errorf("looking at %s: %w", path, err)
	}
	if exists(filepath.Join(dir, "partition")) {
		whole := "/dev/" + filepath.Base(filepath.Dir(dir))
		return nil, refuse("an image is written to the whole disk: "+whole, "is a partition of %s", whole)
	}
	if parts := names(filepath.Join(dir, "slaves")); len(parts) > 0 {
		return nil, refuse("an image is written to a disk itself", "is made of other disks (%s)", strings.Join(parts, ", "))
	}
	sectors, err := strconv.ParseInt(readLine(filepath.Join(dir, "size")), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("looking at %s: %w", path, err)
	}
	switch {
	case sectors == 0:
		return nil, refuse("", "has no medium")
	case readLine(filepath.Join(dir, "ro")) == "1":
		return nil, refuse("is there a switch on the medium?", "is read-only")
	}
	if size := readLine(filepath.Join(dir, "queue/logical_block_size")); size != strconv.Itoa(sector) {
		return nil, refuse("", "has sectors of %s bytes, and Atoll's images are for disks with sectors of %d", size, sector)
	}
	if use, err := m.use(dir); err != nil {
		return nil, fmt.Errorf("looking at %s: %w", path, err)
	} else if use != nil {
		use.Device = path
		return nil, use
	}
	return &Target{Path: path, Model: model(dir), Serial: serial(dir), Size: sectors * sector, dev: dev}, nil
}

// use says what uses a disk, or a partition of it; nil if nothing does.
func (m machine) use(dir string) (*TargetError, error) {
	nodes := []string{dir}
	for _, name := range names(dir) {
		if part := filepath.Join(dir, name); exists(filepath.Join(part, "partition")) {
			nodes = append(nodes, part)
		}
	}
	mounts, err := m.mounts()
	if err != nil {
		return nil, err
	}
	swaps, err := m.swaps()
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		name, number := filepath.Base(node), readLine(filepath.Join(node, "dev"))
		for _, mount := range mounts {
			switch {
			case mount.number != number && mount.source != name:
			case slices.Contains([]string{"/", "/boot", "/boot/efi", "/usr", "/var"}, mount.at):
				return &TargetError{Reason: fmt.Sprintf("holds this system: /dev/%s is mounted at %s", name, mount.at)}, nil
			default:
				return &TargetError{Reason: fmt.Sprintf("is in use: /dev/%s is mounted at %s", name, mount.at), Advice: "umount /dev/" + name}, nil
			}
		}
		if slices.Contains(swaps, name) {
			return &TargetError{Reason: fmt.Sprintf("is in use: /dev/%s is swap", name), Advice: "swapoff /dev/" + name}, nil
		}
		for _, holder := range names(filepath.Join(node, "holders")) {
			if of := readLine(filepath.Join(m.sys, "block", holder, "dm/name")); of != "" {
				holder += ", " + of
			}
			return &TargetError{Reason: fmt.Sprintf("is in use: /dev/%s is part of another disk (%s)", name, holder),
				Advice: "take it out of its LVM, RAID, multipath or encrypted volume first"}, nil
		}
	}
	return nil, nil
}

// mount is a line of mountinfo, see proc_pid_mountinfo(5).
type mount struct{ number, source, at string }

func (m machine) mounts() ([]mount, error) {
	var mounts []mount
	err := eachLine(filepath.Join(m.proc, "self/mountinfo"), func(line string) {
		before, after, _ := strings.Cut(line, " - ")
		f, of := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(of) < 2 {
			return
		}
		mounts = append(mounts, mount{f[2], kernelName(of[1]), unescape(f[4])})
	})
	return mounts, err
}

// swaps are the kernel's names of the devices with swap, see proc_swaps(5).
func (m machine) swaps() ([]string, error) {
	var swaps []string
	err := eachLine(filepath.Join(m.proc, "swaps"), func(line string) {
		if f := strings.Fields(line); len(f) > 0 {
			swaps = append(swaps, kernelName(f[0]))
		}
	})
	if errors.Is(err, fs.ErrNotExist) { // a kernel without swap
		return nil, nil
	}
	return swaps, err
}

// kernelName is the name of a device that proc tells the node of, "" if it is none.
func kernelName(path string) string {
	path = unescape(path)
	if !strings.HasPrefix(path, "/dev/") {
		return ""
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return filepath.Base(path)
}

// unescape reads the octal escapes of proc's files.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

func eachLine(path string, f func(string)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	s := bufio.NewScanner(file)
	for s.Scan() {
		f(s.Text())
	}
	return s.Err()
}

func model(dir string) string {
	for _, name := range []string{"device/model", "device/name"} {
		if text := readLine(filepath.Join(dir, name)); text != "" {
			return text
		}
	}
	return ""
}

// serial looks where the disks of each kind have it: virtio, NVMe, SCSI (page 0x80 of its
// vital product data, which has a head of four bytes), and the USB device above.
func serial(dir string) string {
	for _, name := range []string{"serial", "device/serial"} {
		if text := readLine(filepath.Join(dir, name)); text != "" {
			return text
		}
	}
	if page, err := os.ReadFile(filepath.Join(dir, "device/vpd_pg80")); err == nil && len(page) > 4 {
		if text := printable(string(page[4:])); text != "" {
			return text
		}
	}
	above, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
	for err == nil && filepath.Base(above) != "devices" && above != "/" {
		if text := readLine(filepath.Join(above, "serial")); text != "" {
			return text
		}
		above = filepath.Dir(above)
	}
	return ""
}

// readLine reads a file of sysfs; "" if there is none.
func readLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
	return printable(line)
}

// printable takes out what a terminal would obey.
func printable(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// names lists a folder; nothing if there is none.
func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// open opens the disk for writing, past the page cache, and for nobody else: with O_EXCL
// the kernel refuses what is mounted or held in whatever namespace.
func (t *Target) open() (*os.File, error) {
	f, err := os.OpenFile(t.Path, os.O_RDWR|unix.O_EXCL|unix.O_DIRECT, 0)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, &TargetError{t.Path, "may not be written to by you", "run it as root"}
	case errors.Is(err, syscall.EBUSY):
		return nil, &TargetError{t.Path, "is in use by another program, or is part of a volume", "lsblk " + t.Path + " shows what it holds"}
	case errors.Is(err, syscall.EROFS):
		return nil, &TargetError{t.Path, "is read-only", ""}
	case err != nil:
		return nil, err
	}
	if err := t.claim(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lockPatience is how long udev may look at a disk that has just come.
const lockPatience = 5 * time.Second

// claim fails unless the open disk is the one that was found, and still unused. The lock
// keeps udev from looking at it while it is written
// (https://systemd.io/BLOCK_DEVICE_LOCKING).
func (t *Target) claim(f *os.File) error {
	for end := time.Now().Add(lockPatience); ; time.Sleep(lockPatience / 50) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			return &TargetError{t.Path, "is locked by another program", ""}
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	now, err := thisMachine.inspect(t.Path, st.Rdev)
	if err != nil {
		return err
	}
	if *now != *t {
		return &TargetError{t.Path, "is another disk now than it was a moment ago", "try again"}
	}
	return nil
}
