package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"atoll/bundle"
	"atoll/images/disk"
)

// tools are the programs and files of the host that a boot needs.
type tools struct {
	qemu, img  string
	code, vars string // UEFI firmware and its empty variables
}

// firmwares are where the distributions put OVMF: code and variables.
var firmwares = [][2]string{
	{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},                         // Debian, Ubuntu
	{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},                               // their older releases
	{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},                     // Fedora
	{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},                 // Arch
	{"/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"},               // openSUSE
	{"/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"},             // older Arch
	{"/usr/share/edk2/OvmfX64/OVMF_CODE.fd", "/usr/share/edk2/OvmfX64/OVMF_VARS.fd"},               // Gentoo
	{"/opt/homebrew/share/qemu/edk2-x86_64-code.fd", "/opt/homebrew/share/qemu/edk2-i386-vars.fd"}, // Homebrew
}

func findTools() (*tools, error) {
	var t tools
	for _, p := range []struct {
		path      *string
		name, pkg string
	}{{&t.qemu, "qemu-system-x86_64", "qemu-system-x86"}, {&t.img, "qemu-img", "qemu-utils"}} {
		path, err := exec.LookPath(p.name)
		if err != nil {
			return nil, &disk.MissingToolError{Tool: p.name, Package: p.pkg}
		}
		*p.path = path
	}
	for _, f := range firmwares {
		if readable(f[0]) && readable(f[1]) {
			t.code, t.vars = f[0], f[1]
			return &t, nil
		}
	}
	return nil, &disk.MissingToolError{Tool: "UEFI firmware (OVMF)", Package: "ovmf"}
}

func readable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// copyVars gives the guest variables of its own, empty as from the factory.
func (t *tools) copyVars(dir string) (string, error) {
	data, err := os.ReadFile(t.vars)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "vars.fd")
	return path, os.WriteFile(path, data, 0o600)
}

// overlay gives the file that the guest writes to, and makes it if there is none.
func (t *tools) overlay(ctx context.Context, image, dir string, o Options) (string, error) {
	format, size, err := inspect(image)
	if err != nil {
		return "", err
	}
	base, err := filepath.Abs(image)
	if err != nil {
		return "", err
	}
	path := o.Overlay
	if path == "" {
		path = filepath.Join(dir, "overlay.qcow2")
	}
	// QEMU has a folder of its own, and takes what is before a colon for a protocol.
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	if err := bundle.CheckOutput(path); err != nil {
		return "", fmt.Errorf("overlay: %w", err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, checkOverlay(path, base, format)
	}
	want := o.DiskSize
	if want == 0 {
		want = size + defaultGrowth
	}
	if want < size {
		return "", fmt.Errorf("disk of %d bytes is smaller than the image of %d", want, size)
	}
	// An overlay that exists is booted, so it must be whole.
	err = bundle.WriteFile(path, func(f *os.File) error {
		cmd := exec.CommandContext(ctx, t.img, "create", "-q", "-f", "qcow2", "-F", format, "-b", base, f.Name(), strconv.FormatInt(want, 10))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("making overlay: %w", err)
	}
	return path, nil
}

// inspect tells an image's format, which QEMU must not guess, and its size in bytes. One
// that QEMU would read with other files of this machine is refused: the guest could read
// them too.
func inspect(image string) (format string, size int64, err error) {
	f, err := bundle.OpenRegular(image)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	var head [32]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return "", 0, errors.New("not a disk image: too short")
	}
	switch {
	case bytes.HasPrefix(head[:], []byte(qcow2Magic)):
		q, err := readQcow2(f)
		if err != nil {
			return "", 0, err
		}
		if q.backing != "" {
			return "", 0, fmt.Errorf("it is an overlay of %q, which the guest could read; give that image, and this one by --overlay", q.backing)
		}
		if q.externalData {
			return "", 0, errors.New("its data are in another file, which the guest could read")
		}
		return "qcow2", q.size, nil
	case bytes.HasPrefix(head[:], []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return "", 0, errors.New("image is compressed with zstd: decompress it first (zstd -d)")
	}
	return "raw", info.Size(), nil
}

// checkOverlay refuses to boot an overlay that is not one of the image: QEMU opens whatever
// file it names.
func checkOverlay(path, image, format string) error {
	f, err := bundle.OpenRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var magic [len(qcow2Magic)]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil || string(magic[:]) != qcow2Magic {
		return fmt.Errorf("%s is no qcow2 file", path)
	}
	q, err := readQcow2(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case q.externalData:
		return fmt.Errorf("%s has its data in another file, which the guest could read", path)
	case q.backing == "":
		return fmt.Errorf("%s is no overlay, but an image of its own", path)
	case !filepath.IsAbs(q.backing) || !sameFile(q.backing, image):
		return fmt.Errorf("%s is an overlay of %q, not of %s", path, q.backing, image)
	case q.backingFormat != format:
		return fmt.Errorf("%s takes its image for %q, which is %s", path, q.backingFormat, format)
	}
	return nil
}

// sameFile says whether both paths lead to one file that is there.
func sameFile(a, b string) bool {
	one, errA := os.Stat(a)
	other, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(one, other)
}
