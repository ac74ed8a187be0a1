package ignition

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"time"

	"github.com/cavaliergopher/cpio"
)

// setfiles stands in for SELinux's tool in the initramfs: Debian's Ignition is built
// to relabel what it wrote, also on a system that has no SELinux.
const setfiles = "#!/bin/sh\nexit 0\n"

// Initrd packs a configuration as an initramfs to load after the main one: a gzipped
// cpio (newc) that holds it where Ignition looks for it. Every time in it is epoch; the
// same input gives the same bytes.
func Initrd(config []byte, epoch time.Time) ([]byte, error) {
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	w := cpio.NewWriter(zip)
	// The kernel replaces a link by a folder of the same name. So only that folder is
	// listed which the main initramfs may lack; usr/lib and usr/bin are folders in any,
	// while bin, sbin and usr/sbin may be links.
	for _, f := range []struct {
		name string
		mode cpio.FileMode
		data []byte
	}{
		{"usr/lib/ignition", cpio.TypeDir | 0o755, nil},
		{"usr/lib/ignition/user.ign", cpio.TypeReg | 0o600, config},
		{"usr/bin/setfiles", cpio.TypeReg | 0o755, []byte(setfiles)},
	} {
		header := &cpio.Header{Name: f.name, Mode: f.mode, ModTime: epoch, Size: int64(len(f.data))}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("packing %s: %w", f.name, err)
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, fmt.Errorf("packing %s: %w", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("packing first-boot initramfs: %w", err)
	}
	if err := zip.Close(); err != nil {
		return nil, fmt.Errorf("packing first-boot initramfs: %w", err)
	}
	return buf.Bytes(), nil
}
