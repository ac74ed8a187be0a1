package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"atoll/bundle"
	"atoll/test/guest"
)

// TestBootDisks boots machines with more than one disk. Each time the disk that the
// firmware starts boots, with its own root, bundle and data, and no byte of another one
// changes; or, where two disks hold the same image, the boot stops and names both. Only
// the quick ones are in every run; ATOLL_BOOT_DISKS=all boots all, in ten minutes.
//
// The images are made in the folder ATOLL_BOOT_DISKS_IN, if that is set, and used again.
func TestBootDisks(t *testing.T) {
	if testing.Short() {
		t.Skip("boots real machines; not in -short")
	}
	needTools(t)
	guest.Alone(t)
	dir := os.Getenv("ATOLL_BOOT_DISKS_IN")
	if dir == "" {
		dir = t.TempDir()
	}
	one, two := bootImage(t, dir, "one"), bootImage(t, dir, "two") // with other IDs
	foreign := foreignDisk(t, dir)
	all := os.Getenv("ATOLL_BOOT_DISKS") == "all"

	// Made by the first case that boots, for those after it.
	installed := ""
	for _, tc := range []struct {
		name  string
		quick bool
		disks []bootDisk
		boots string // the appliance that does; "" if the boot stops
		keep  bool   // what the first disk has become, as the installed one
	}{
		{name: "the same image twice", quick: true,
			disks: []bootDisk{{image: one, first: true}, {image: one}}},
		{name: "an image, another one and a disk with the same labels", quick: true, keep: true, boots: "one",
			disks: []bootDisk{{image: one, first: true}, {image: two}, {image: foreign}}},
		{name: "the same, in another order", boots: "one",
			disks: []bootDisk{{image: foreign}, {image: two}, {image: one, first: true}}},
		{name: "the same image twice, started from the last", disks: []bootDisk{{image: one}, {image: one, first: true}}},
		{name: "the same image on a stick", disks: []bootDisk{{image: one, first: true}, {image: one, usb: true}}},
		{name: "started from a stick with the same image", disks: []bootDisk{{image: one}, {image: one, usb: true, first: true}}},
		{name: "an installed disk beside a fresh copy", disks: []bootDisk{{image: "installed", first: true}, {image: one}}},
		{name: "a fresh copy beside an installed disk", disks: []bootDisk{{image: one, first: true}, {image: "installed"}}},
		{name: "an installed disk beside another image", boots: "one",
			disks: []bootDisk{{image: "installed", first: true}, {image: two}}},
		{name: "an installed disk behind another image", boots: "one",
			disks: []bootDisk{{image: two}, {image: "installed", first: true}}},
		{name: "another image beside an installed disk", boots: "two",
			disks: []bootDisk{{image: two, first: true}, {image: "installed"}}},
		{name: "another image behind an installed disk", boots: "two",
			disks: []bootDisk{{image: "installed"}, {image: two, first: true}}},
		{name: "an installed disk and a stick with another image", boots: "one",
			disks: []bootDisk{{image: "installed", first: true}, {image: two, usb: true}}},
		{name: "started from a stick with another image", boots: "two",
			disks: []bootDisk{{image: "installed"}, {image: two, usb: true, first: true}}},
	} {
		if !tc.quick && !all {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			m := newBootMachine(t, tc.disks, installed)
			m.boot(t)
			if tc.boots == "" {
				m.stopped(t)
			} else {
				m.booted(t, tc.boots)
			}
			if tc.keep && !t.Failed() {
				installed = filepath.Join(dir, "installed.qcow2")
				run(t, "cp", m.overlays[0], installed)
			}
		})
	}
}

// bootImage makes the disk image of a small appliance, if it is not there. Its k3s is none.
func bootImage(t *testing.T, dir, name string) string {
	t.Helper()
	image := filepath.Join(dir, name, "build", name+".raw")
	if _, err := os.Stat(image); err == nil {
		return image
	}
	release := filepath.Join(dir, "k3s")
	if err := os.MkdirAll(release, 0o755); err != nil {
		t.Fatal(err)
	}
	sums := ""
	for _, file := range []string{"k3s", "k3s-images.txt", "k3s-airgap-images-amd64.tar.zst"} {
		data := []byte("no " + file + "\n")
		if err := os.WriteFile(filepath.Join(release, file), data, 0o755); err != nil {
			t.Fatal(err)
		}
		sums += bundle.DigestOf(data).Hex + "  " + file + "\n"
	}
	definition := filepath.Join(dir, name, "appliance.yaml")
	text := fmt.Sprintf("name: %s\nstack: lab\nk3s: {version: v1.34.4+lab1, release: %q}\n", name, release)
	if err := os.MkdirAll(filepath.Dir(definition), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string]string{filepath.Join(release, "sha256sum-amd64.txt"): sums, definition: text} {
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	atoll, labimages := programs(t, t.TempDir())
	run(t, labimages, "serve", "-dir", filepath.Join(dir, "registry"), "--", "../scripts/lab.sh", "{registry}", atoll, definition)
	return image
}

// foreignDisk makes a disk that someone gave the labels of an Atoll disk.
func foreignDisk(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "foreign.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(6 << 30); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	run(t, "/usr/sbin/sgdisk", "-n", "1:0:+64M", "-t", "1:ef00", "-c", "1:atoll-esp", "-n", "2:0:+1G", "-t", "2:8304", "-c", "2:atoll-root",
		"-n", "3:0:+1G", "-c", "3:atoll-bundle", "-n", "4:0:+3G", "-t", "4:8300", "-c", "4:atoll-data", path)
	run(t, "mke2fs", "-q", "-t", "ext4", "-L", "atoll-root", "-E", "offset=68157440", path, "1G") // the second partition
	return path
}

// bootDisk is a disk of a machine.
type bootDisk struct {
	image string // raw, or "installed"
	first bool   // for the firmware
	usb   bool   // else virtio
}

// bootMachine is a machine that is off, and how it was left.
type bootMachine struct {
	disks    []bootDisk
	overlays []string // what the disks are written to
	before   []string // their digests
	dir      string
	console  string // what was written to it
	status   bundle.Status
	prepared time.Time // when it had read its bundle
}

func newBootMachine(t *testing.T, disks []bootDisk, installed string) *bootMachine {
	t.Helper()
	dir, err := os.MkdirTemp("", "disks") // not the test's: QEMU ends a path at a comma
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &bootMachine{disks: disks, dir: dir}
	for i, d := range disks {
		image, format := d.image, "raw"
		if image == "installed" {
			if image, format = installed, "qcow2"; image == "" {
				t.Skip("nothing was installed")
			}
		}
		overlay := filepath.Join(m.dir, fmt.Sprintf("disk%d.qcow2", i))
		run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", format, "-b", image, overlay, "24G")
		m.overlays = append(m.overlays, overlay)
		m.before = append(m.before, digest(t, overlay))
	}
	return m
}

func digest(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

func (m *bootMachine) path(name string) string { return filepath.Join(m.dir, name) }

// boot switches the machine on, and off when it has come far enough, or stopped.
func (m *bootMachine) boot(t *testing.T) {
	t.Helper()
	code, vars := firmware(t)
	run(t, "cp", vars, m.path("vars"))
	args := []string{"-accel", "tcg,thread=multi", "-cpu", "max,erms=off,fsrm=off,la57=off", "-m", "2048", "-smp", "2", "-machine", "q35",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none",
		"-drive", "if=pflash,format=raw,readonly=on,file=" + code, "-drive", "if=pflash,format=raw,file=" + m.path("vars"),
		"-device", "qemu-xhci", "-device", "virtio-rng-pci", "-serial", "file:" + m.path("console"),
		"-chardev", "file,id=status,path=" + m.path("status"), "-device", "virtio-serial-pci",
		"-device", "virtserialport,chardev=status,name=" + bundle.StatusPort}
	for i, d := range m.disks {
		kind, index := "virtio-blk-pci", i+2
		if d.usb {
			kind = "usb-storage"
		}
		if d.first {
			index = 1
		}
		args = append(args, "-drive", fmt.Sprintf("if=none,id=disk%d,format=qcow2,file=%s", i, m.overlays[i]),
			"-device", fmt.Sprintf("%s,drive=disk%d,serial=disk-%d,bootindex=%d", kind, i, i, index))
	}
	cmd := exec.Command("qemu-system-x86_64", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	started := time.Now()
	for !m.done(t) {
		select {
		case err := <-ended:
			t.Logf("QEMU ended by itself: %v %s", err, &stderr)
			m.done(t)
			return
		case <-time.After(time.Second):
		}
		if time.Since(started) > 10*time.Minute {
			t.Errorf("nothing came of it in %v", time.Since(started))
			break
		}
	}
	t.Logf("after %v", time.Since(started).Round(time.Second))
	cmd.Process.Kill()
	<-ended
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]|\r")

// done reads what the machine has told, and says whether that is enough.
func (m *bootMachine) done(t *testing.T) bool {
	t.Helper()
	text, err := os.ReadFile(m.path("console"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	m.console = escapes.ReplaceAllString(string(text), "")
	if status, err := os.ReadFile(m.path("status")); err == nil {
		for line := range bytes.Lines(status) {
			var s bundle.Status
			if json.Unmarshal(line, &s) == nil {
				m.status = s
			}
		}
	}
	if m.prepared.IsZero() && slices.ContainsFunc(m.status.Phases, func(p bundle.PhaseStatus) bool {
		return p.Name == "prepare" && p.State == bundle.StateReady
	}) {
		m.prepared = time.Now()
	}
	return strings.Contains(m.console, "This machine goes off in") || strings.Contains(m.console, "Reached target emergency.target") ||
		!m.prepared.IsZero() && (strings.Contains(m.console, "end of the first boot.") || time.Since(m.prepared) > 20*time.Second)
}

// unchanged fails if any byte of a disk but those that may was written.
func (m *bootMachine) unchanged(t *testing.T, may func(bootDisk) bool) {
	t.Helper()
	for i, d := range m.disks {
		if same := digest(t, m.overlays[i]) == m.before[i]; same == may(d) {
			t.Errorf("disk %d (%s): unchanged is %v", i, d.image, same)
		}
	}
}

// booted fails unless the first disk booted, all alone.
func (m *bootMachine) booted(t *testing.T, appliance string) {
	t.Helper()
	if m.status.Appliance != appliance {
		t.Errorf("appliance %q booted, want %q; the console's end:\n%s", m.status.Appliance, appliance, m.console[max(0, len(m.console)-3000):])
	}
	m.unchanged(t, func(d bootDisk) bool { return d.first })
}

// stopped fails unless the boot stopped, said so and named the disks.
func (m *bootMachine) stopped(t *testing.T) {
	t.Helper()
	_, text, _ := strings.Cut(m.console, "atoll: not booting: ")
	if text == "" {
		t.Errorf("the boot did not stop; appliance %q booted; the console's end:\n%s", m.status.Appliance, m.console[max(0, len(m.console)-3000):])
	}
	t.Logf("the console says: %s", text)
	for i := range m.disks {
		if !strings.Contains(text, fmt.Sprintf("serial disk-%d, 24576 MiB", i)) {
			t.Errorf("disk %d is not named", i)
		}
	}
	m.unchanged(t, func(bootDisk) bool { return false })
}

func firmware(t *testing.T) (code, vars string) {
	t.Helper()
	for _, suffix := range []string{"_4M.fd", ".fd"} {
		code, vars = "/usr/share/OVMF/OVMF_CODE"+suffix, "/usr/share/OVMF/OVMF_VARS"+suffix
		if _, err := os.Stat(code); err == nil {
			return code, vars
		}
	}
	t.Skip("no UEFI firmware; make deps installs it")
	return "", ""
}
