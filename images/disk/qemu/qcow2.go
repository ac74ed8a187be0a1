package qemu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The fields of a qcow2 header that say what else QEMU would open (QEMU,
// docs/interop/qcow2.txt). All numbers are big-endian.
const (
	qcow2Magic = "QFI\xfb"

	minHeader    = 72  // bytes, of version 2
	minHeaderV3  = 104 // of version 3
	maxHeader    = 4096
	maxBacking   = 1023    // bytes of the backing file's name
	maxExtension = 4096    // bytes of an extension that we read; others are skipped
	maxDiskSize  = 1 << 60 // bytes

	externalData = 1 << 2 // incompatible feature: the data are in another file

	extensionEnd           = 0
	extensionBackingFormat = 0xe2792aca
)

// qcow2 is what a header says.
type qcow2 struct {
	size int64 // of the disk, in bytes
	// backing is the file that has what this one has not, as QEMU would read it; empty
	// if there is none. backingFormat is its format, empty if QEMU is to guess it.
	backing, backingFormat string
	externalData           bool
}

// readQcow2 reads the header of a file that starts with the magic.
func readQcow2(r io.ReaderAt) (*qcow2, error) {
	var head [minHeaderV3]byte
	n, err := r.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	version := binary.BigEndian.Uint32(head[4:])
	length := int64(minHeader)
	switch {
	case n >= minHeader && version == 2:
	case n >= minHeaderV3 && version == 3:
		length = int64(binary.BigEndian.Uint32(head[100:]))
	case n >= minHeader && version != 3:
		return nil, fmt.Errorf("qcow2 header is of version %d, which is not known", version)
	default:
		return nil, errors.New("qcow2 header is cut short")
	}
	bits := binary.BigEndian.Uint32(head[20:])
	size := binary.BigEndian.Uint64(head[24:])
	if bits < 9 || bits > 21 || length < minHeader || length > maxHeader || size == 0 || size > maxDiskSize {
		return nil, errors.New("qcow2 header has no usable size")
	}
	q := &qcow2{size: int64(size)}
	if version == 3 {
		q.externalData = binary.BigEndian.Uint64(head[72:])&externalData != 0
	}
	cluster := int64(1) << bits
	at := binary.BigEndian.Uint64(head[8:])
	if at == 0 {
		return q, nil
	}
	name := binary.BigEndian.Uint32(head[16:])
	if at > uint64(cluster) || name == 0 || name > maxBacking {
		return nil, errors.New("qcow2 header has no usable backing file")
	}
	if q.backing, err = readString(r, int64(at), int64(name)); err != nil {
		return nil, err
	}
	q.backingFormat, err = backingFormat(r, length, int64(at))
	return q, err
}

// backingFormat looks through the extensions, which end where the backing file's name is.
func backingFormat(r io.ReaderAt, at, end int64) (string, error) {
	format := ""
	for at+8 <= end {
		var head [8]byte
		if _, err := r.ReadAt(head[:], at); err != nil {
			return "", errors.New("qcow2 header is cut short")
		}
		kind, size := binary.BigEndian.Uint32(head[:]), int64(binary.BigEndian.Uint32(head[4:]))
		at += 8
		switch kind {
		case extensionEnd:
			return format, nil
		case extensionBackingFormat:
			if size > maxExtension || at+size > end {
				return "", errors.New("qcow2 header has an extension that is too long")
			}
			var err error
			if format, err = readString(r, at, size); err != nil {
				return "", err
			}
		}
		at += (size + 7) &^ 7
	}
	return format, nil
}

func readString(r io.ReaderAt, at, size int64) (string, error) {
	data := make([]byte, size)
	if _, err := r.ReadAt(data, at); err != nil {
		return "", errors.New("qcow2 header is cut short")
	}
	return string(data), nil
}
