package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// stick is a machine with one disk, a USB stick with two partitions that nothing uses:
// files of sysfs and proc, and links where the text begins with "-> ".
var stick = map[string]string{
	"sys/devices/pci0/usb1/1-1/serial":                                           "4C53\x1b[2J0001\n",
	"sys/devices/pci0/usb1/1-1/1-1:1.0/host6/block/sdb/dev":                      "8:16\n",
	"sys/devices/pci0/usb1/1-1/1-1:1.0/host6/block/sdb/size":                     "16777216\n",
	"sys/devices/pci0/usb1/1-1/1-1:1.0/host6/block/sdb/ro":                       "0\n",
	"sys/devices/pci0/usb1/1-1/1-1:1.0/host6/block/sdb/queue/logical_block_size": "512\n",
	"sys/devices/pci0/usb1/1-1/1-1:1.0/host6/block/sdb/device":                   "-> ../..",
	"sys/devices/pci0/usb1/1-1/1-1:1.0/host6/model":                              "Ultra\x07 Fit  \n",
	"sys/devices/pci0/usb1/1-1/1-1:1.0/host6/block/sdb/sdb1/partition":           "1\n",
	"sys/devices/pci0/usb1/1-1/1-1:1.0/host6/block/sdb/sdb1/dev":                 "8:17\n",
	"sys/devices/pci0/usb1/1-1/1-1:1.0/host6/block/sdb/sdb2/partition":           "2\n",
	"sys/devices/pci0/usb1/1-1/1-1:1.0/host6/block/sdb/sdb2/dev":                 "8:18\n",
	"sys/dev/block/8:16":  "-> ../../devices/pci0/usb1/1-1/1-1:1.0/host6/block/sdb",
	"sys/dev/block/8:18":  "-> ../../devices/pci0/usb1/1-1/1-1:1.0/host6/block/sdb/sdb2",
	"proc/self/mountinfo": "22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw\n23 22 0:21 / /proc rw - proc proc rw\n",
	"proc/swaps":          "Filename Type Size Used Priority\n/dev/sda3 partition 999 0 -2\n",
}

const stickDir = "sys/devices/pci0/usb1/1-1/1-1:1.0/host6/block/sdb/"

// fakeMachine makes a machine of the stick's files and others.
func fakeMachine(t *testing.T, others map[string]string) machine {
	t.Helper()
	dir := t.TempDir()
	files := maps.Clone(stick)
	maps.Copy(files, others)
	for name, text := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			err = errors.Join(err, os.Symlink(to, path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(text), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return machine{sys: filepath.Join(dir, "sys"), proc: filepath.Join(dir, "proc")}
}

func TestTargetOfStick(t *testing.T) {
	got, err := fakeMachine(t, nil).inspect("/dev/sdb", unix.Mkdev(8, 16))
	if err != nil {
		t.Fatal(err)
	}
	want := Target{Path: "/dev/sdb", Model: "Ultra Fit", Serial: "4C53[2J0001", Size: 8 << 30, dev: 0}
	if got.dev = 0; *got != want {
		t.Errorf("got %+v, want %+v", *got, want)
	}
}

func TestTargetIsRefused(t *testing.T) {
	mounts := func(line string) map[string]string {
		return map[string]string{"proc/self/mountinfo": stick["proc/self/mountinfo"] + line + "\n"}
	}
	for _, tc := range []struct {
		name  string
		minor uint32
		files map[string]string
		want  string
	}{
		{"partition", 18, nil, "is a partition of /dev/sdb"},
		{"made of others", 16, map[string]string{stickDir + "slaves/sda": "", stickDir + "slaves/sdc": ""}, "is made of other disks (sda, sdc)"},
		{"no medium", 16, map[string]string{stickDir + "size": "0\n"}, "has no medium"},
		{"read-only", 16, map[string]string{stickDir + "ro": "1\n"}, "is read-only"},
		{"4096-byte sectors", 16, map[string]string{stickDir + "queue/logical_block_size": "4096\n"}, "has sectors of 4096 bytes"},
		{"mounted", 16, mounts(`30 22 8:16 / /media/a\040b rw - vfat /dev/sdb rw`), "is in use: /dev/sdb is mounted at /media/a b"},
		{"partition mounted", 16, mounts("30 22 8:18 / /mnt rw - ext4 /dev/sdb2 rw"), "is in use: /dev/sdb2 is mounted at /mnt"},
		{"btrfs, which has a number of its own", 16, mounts("30 22 0:40 / /mnt rw shared:9 - btrfs /dev/sdb1 rw"), "is in use: /dev/sdb1 is mounted at /mnt"},
		{"the system", 16, mounts("30 22 8:17 / /boot/efi rw - vfat /dev/sdb1 rw"), "holds this system: /dev/sdb1 is mounted at /boot/efi"},
		{"swap", 16, map[string]string{"proc/swaps": "Filename Type\n/dev/sdb2 partition 1 0 -2\n"}, "is in use: /dev/sdb2 is swap"},
		{"LVM", 16, map[string]string{stickDir + "sdb2/holders/dm-0": "", "sys/block/dm-0/dm/name": "vg-root\n"}, "/dev/sdb2 is part of another disk (dm-0, vg-root)"},
		{"RAID of whole disks", 16, map[string]string{stickDir + "holders/md127": ""}, "/dev/sdb is part of another disk (md127)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := fakeMachine(t, tc.files).inspect("/dev/sdb", unix.Mkdev(8, tc.minor))
			var refused *TargetError
			if !errors.As(err, &refused) || !strings.Contains(refused.Error(), tc.want) || !strings.HasPrefix(refused.Error(), "/dev/sdb ") {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestTargetIsADisk(t *testing.T) {
	for _, path := range []string{"target_test.go", ".", "/dev/null", "/dev/nothing"} {
		var refused *TargetError
		if _, err := FindTarget(path); !errors.As(err, &refused) {
			t.Errorf("%s: got %v, want a TargetError", path, err)
		}
	}
}

// TestLeastDataIsReparts holds what Fits reckons with to what the first boot does.
func TestLeastDataIsReparts(t *testing.T) {
	conf, err := glue.ReadFile("glue/root/usr/lib/repart.d/50-atoll-data.conf")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("\nSizeMinBytes=%dG\n", minData/gib); !strings.Contains(string(conf), want) {
		t.Errorf("systemd-repart is not told %q:\n%s", want, conf)
	}
}

// TestNothingIsFoundByLabel holds the base to links of the booted disk: labels and IDs are
// the same on each copy of an image.
func TestNothingIsFoundByLabel(t *testing.T) {
	by := regexp.MustCompile(`/dev/disk/by-|(PARTLABEL|PARTUUID|LABEL|UUID)=|dev-disk-by`)
	for _, tree := range []fs.FS{glue, os.DirFS("../../ignition/files")} {
		err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := fs.ReadFile(tree, path)
			for line := range strings.Lines(string(text)) {
				// What asks udev for all that have the ID is how two are found.
				if by.MatchString(line) && !strings.Contains(line, "--property-match=") {
					t.Errorf("%s finds a disk by a label or an ID: %s", path, line)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
