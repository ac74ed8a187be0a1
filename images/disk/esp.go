package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
)

const (
	sector = 512
	// espSize is one of the sizes at which go-diskfs makes a sound FAT32 (its issue 418).
	espSize = 512 * mib
	// espLabel and the like are at most 11 characters; more are cut silently.
	espLabel = "ATOLL-ESP"
	// espChunk is how much is written to a file at once: go-diskfs writes the whole
	// allocation table with each.
	espChunk = 4 * mib
)

// kernelArguments are for every boot. The last console is /dev/console. The root file
// system is that of the disk with the partition atoll.root, which is given beside them:
// see bootdisk.sh. A boot that fails before the root file system is there ends in poweroff, so that whoever
// runs the machine, or QEMU, sees it end.
const kernelArguments = "root=/dev/disk/atoll/root rw console=tty0 console=ttyS0,115200n8 loglevel=4 systemd.gpt_auto=no " +
	"rd.shell=0 rd.emergency=poweroff"

// firstBootArguments let Ignition run. Its platform "metal" has no source of a
// configuration but the initramfs.
const firstBootArguments = "ignition.firstboot ignition.platform.id=metal"

// espFile is a file of the ESP: data, or a file of the base.
type espFile struct {
	path string
	data []byte
	from string
	size int64
}

// espFiles lists what is on the ESP. systemd-boot takes the default entry, or the other
// one when the node has deleted that at the end of its first boot.
func (k *baker) espFiles() ([]espFile, error) {
	options := "options atoll.root=" + k.guid("atoll-root").String() + " " + kernelArguments
	entry := func(title, initrd, options string) []byte {
		return []byte("title " + title + "\nlinux /atoll/vmlinuz\ninitrd /atoll/initrd.img\n" + initrd + options + "\n")
	}
	files := []espFile{
		{path: "EFI/BOOT/BOOTX64.EFI", from: k.img.Base.Path(loaderFile)},
		{path: "loader/loader.conf", data: []byte("default atoll-firstboot.conf\ntimeout 0\neditor no\n")},
		{path: "loader/entries/atoll-firstboot.conf",
			data: entry("Atoll (first boot)", "initrd /atoll/ignition.img\n", options+" "+firstBootArguments)},
		{path: "loader/entries/atoll.conf", data: entry("Atoll", "", options)},
		{path: "atoll/vmlinuz", from: k.img.Base.Path(kernelFile)},
		{path: "atoll/initrd.img", from: k.img.Base.Path(initrdFile)},
		{path: "atoll/ignition.img", data: k.img.Ignition},
	}
	var total int64
	for i, f := range files {
		files[i].size = int64(len(f.data))
		if f.from != "" {
			info, err := os.Stat(f.from)
			if err != nil {
				return nil, err
			}
			files[i].size = info.Size()
		}
		total += files[i].size
	}
	if total > espSize-16*mib { // the allocation tables take 1 MiB
		return nil, fmt.Errorf("kernel and initramfs have %d MiB, too much for an ESP of %d MiB", total/mib, espSize/mib)
	}
	return files, nil
}

// writeESP makes the ESP and its files.
func (k *baker) writeESP(f *os.File, files []espFile) error {
	fs, err := fat32.Create(file.New(f, false), k.esp.size, k.esp.offset, sector, espLabel, true)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := fs.Mkdir(path.Dir(file.path)); err != nil {
			return fmt.Errorf("making folder of %s: %w", file.path, err)
		}
		if err := k.writeESPFile(fs, file); err != nil {
			return fmt.Errorf("writing %s: %w", file.path, err)
		}
	}
	serial := k.guid("serial")
	return finishFAT(f, k.esp.offset, binary.LittleEndian.Uint32(serial[:4]), k.img.Lock.Epoch)
}

func (k *baker) writeESPFile(fs *fat32.FileSystem, file espFile) error {
	var r io.Reader = bytes.NewReader(file.data)
	if file.from != "" {
		f, err := os.Open(file.from)
		if err != nil {
			return err
		}
		defer f.Close()
		r = f
	}
	w, err := fs.OpenFile(file.path, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return err
	}
	buf := make([]byte, espChunk)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			k.step(int64(n))
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return w.Close()
		}
		if err != nil {
			return err
		}
		if err := k.ctx.Err(); err != nil {
			return err
		}
	}
}
