package ignition

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"time"

	"github.com/cavaliergopher/cpio"
)

// setfiles stands in for SELinux's tool in the initramfs: Debian's Ignition is built
// to relabel what it wrote, also on a system that has no SELinux.
const setfiles = "#!/bin/sh\nexit 0\n"

// initramfs lists what goes into the initramfs beside the configuration: folders, and
// files with what they are made from. The kernel replaces a link by a folder of the same
// name. So only folders are listed which the main initramfs may lack; usr/lib and
// usr/bin are folders in any, while bin, sbin and usr/sbin may be links. Of two drop-ins
// of one name systemd reads only the one for fewer units.
var initramfs = []struct {
	name string
	mode cpio.FileMode
	from string
}{
	{"usr/lib/ignition", cpio.TypeDir | 0o755, ""},
	{"usr/lib/ignition/mend", cpio.TypeReg | 0o755, "mend"},
	{"usr/lib/ignition/report", cpio.TypeReg | 0o755, "report"},
	{"usr/lib/systemd/system/ignition-files.service.d", cpio.TypeDir | 0o755, ""},
	{"usr/lib/systemd/system/ignition-files.service.d/50-atoll-mend.conf", cpio.TypeReg | 0o644, "mend.conf"},
	{"usr/lib/systemd/system/ignition-.service.d", cpio.TypeDir | 0o755, ""}, // all that start so
	{"usr/lib/systemd/system/ignition-.service.d/50-atoll-report.conf", cpio.TypeReg | 0o644, "report.conf"},
}

// Initrd packs a configuration as an initramfs to load after the main one: a gzipped
// cpio (newc) that holds it where Ignition looks for it, and what Debian's Ignition needs
// to run here, to run again after a power cut, and to tell why it failed. Every time in it is epoch; the
// same input gives the same bytes.
func Initrd(config []byte, epoch time.Time) ([]byte, error) {
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	w := cpio.NewWriter(zip)
	add := func(name string, mode cpio.FileMode, data []byte) error {
		if err := w.WriteHeader(&cpio.Header{Name: name, Mode: mode, ModTime: epoch, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	for _, f := range initramfs {
		var data []byte
		var err error
		if f.from != "" {
			data, err = files.ReadFile("files/initramfs/" + f.from)
		}
		if err := errors.Join(err, add(f.name, f.mode, data)); err != nil {
			return nil, fmt.Errorf("packing %s: %w", f.name, err)
		}
	}
	err := errors.Join(
		add("usr/bin/setfiles", cpio.TypeReg|0o755, []byte(setfiles)),
		add("usr/lib/ignition/user.ign", cpio.TypeReg|0o600, config))
	if err != nil {
		return nil, fmt.Errorf("packing first-boot initramfs: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("packing first-boot initramfs: %w", err)
	}
	if err := zip.Close(); err != nil {
		return nil, fmt.Errorf("packing first-boot initramfs: %w", err)
	}
	return buf.Bytes(), nil
}
