package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

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
	path := o.Overlay
	if path == "" {
		path = filepath.Join(dir, "overlay.qcow2")
	} else if _, err := os.Stat(path); err == nil {
		return path, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	format, size, err := inspect(image)
	if err != nil {
		return "", err
	}
	want := o.DiskSize
	if want == 0 {
		want = size + defaultGrowth
	}
	if want < size {
		return "", fmt.Errorf("disk of %d bytes is smaller than the image of %d", want, size)
	}
	base, err := filepath.Abs(image)
	if err != nil {
		return "", err
	}
	// Under a temporary name first: an overlay that exists is booted, so it must be whole.
	part := path + ".part"
	cmd := exec.CommandContext(ctx, t.img, "create", "-q", "-f", "qcow2", "-F", format, "-b", base, part, strconv.FormatInt(want, 10))
	if out, err := cmd.CombinedOutput(); err != nil {
		os.Remove(part)
		return "", fmt.Errorf("making overlay: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return path, os.Rename(part, path)
}

// inspect tells an image's format, which QEMU must not guess, and its size in bytes.
func inspect(image string) (format string, size int64, err error) {
	f, err := os.Open(image)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	if !info.Mode().IsRegular() {
		return "", 0, errors.New("not a regular file")
	}
	var head [32]byte // qcow2: magic at 0, size at 24 (QEMU, docs/interop/qcow2.txt)
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return "", 0, errors.New("not a disk image: too short")
	}
	switch {
	case bytes.HasPrefix(head[:], []byte("QFI\xfb")):
		size = int64(binary.BigEndian.Uint64(head[24:]))
		if size <= 0 || size > 1<<60 {
			return "", 0, errors.New("qcow2 header has no usable size")
		}
		return "qcow2", size, nil
	case bytes.HasPrefix(head[:], []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return "", 0, errors.New("image is compressed with zstd: decompress it first (zstd -d)")
	}
	return "raw", info.Size(), nil
}
