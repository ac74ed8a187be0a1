// Package disk makes bootable disk images. [BuildBase] builds the operating system
// of an appliance, Debian, out of packages that were fetched before; [Bake] writes it
// with a bundle and a first-boot configuration to an image, and [Flash] writes that to a
// disk. In it are:
//
//	1  atoll-esp     FAT32, 512 MiB: systemd-boot, kernel, initramfs, first-boot configuration
//	2  atoll-root    ext4: the base
//	3  atoll-bundle  the bundle as it is, no file system
//	4  atoll-data    not in the image: the node makes it on its first boot in the
//	                 rest of the disk (systemd-repart) and mounts it at /var/lib/rancher
//
// The node finds them by the disk that it booted from, as /dev/disk/atoll/esp and so on:
// other disks may have partitions of the same names and IDs.
//
// The package never dials out, and what it builds is built without a network.
// Matchable errors: [MissingToolError], [TargetError], [ImageError], [UnfinishedError],
// [bundle.CorruptError], [bundle.ErrIncomplete], [bundle.ErrStale] and syscall.ENOSPC.
package disk

import (
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
)

// Options are options of [BuildBase], [Bake] and [Flash]. Nil is fine.
type Options struct {
	// Log is told what the tools say. Nil discards.
	Log *slog.Logger
	// Progress is told how far a step is, in bytes. Steps follow one another.
	Progress func(step string, done, total int64)
}

func (o *Options) log() *slog.Logger {
	if o == nil || o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// progress tells of one step.
func (o *Options) progress(step string) func(done, total int64) {
	if o == nil || o.Progress == nil {
		return func(int64, int64) {}
	}
	return func(done, total int64) { o.Progress(step, done, total) }
}

// MissingToolError says that a program is not installed.
type MissingToolError struct {
	Tool    string
	Package string // the Debian package that has it
}

func (e *MissingToolError) Error() string {
	return fmt.Sprintf("%s is not installed (Debian package %s)", e.Tool, e.Package)
}

// findTool gives a program's path, or a [MissingToolError]. Those of the administrator are
// found also for a user who does not have their folders in his PATH, as on Debian.
func findTool(tool, pkg string) (string, error) {
	for _, dir := range []string{"", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, tool)); err == nil {
			return path, nil
		}
	}
	return "", &MissingToolError{Tool: tool, Package: pkg}
}

func lookTool(tool, pkg string) error {
	_, err := findTool(tool, pkg)
	return err
}

// Packages lists the Debian packages that a node needs, and the extra ones, sorted.
// Their dependencies and Debian's essential packages are for the resolver to add.
func Packages(extra []string) []string {
	list := append([]string{
		"linux-image-amd64", // the cloud kernel lacks AHCI and RAID controllers
		"systemd-boot-efi",

		// The initramfs. What else Ignition's dracut module asks for is for networks,
		// which a first boot does not have: glue/root/usr/lib/dracut.
		"dracut", "ignition", "e2fsprogs", "gdisk", "zstd",

		// The system.
		"systemd", "systemd-sysv", "udev", "dbus", "kmod", "procps", "tzdata", "ca-certificates",
		"usr-is-merged", // else usrmerge, and with it 45 MB of Perl

		"nftables", // the node's firewall

		// What k3s runs.
		"iproute2", "iptables", "conntrack", "mount", "util-linux",

		// People.
		"openssh-server", "sudo", "curl",
	}, extra...)
	slices.Sort(list)
	return slices.Compact(list)
}
