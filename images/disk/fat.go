package disk

import (
	"encoding/binary"
	"errors"
	"io"
	"time"
)

// What go-diskfs v1.9.4 leaves undone on a FAT32 volume, done to its bytes. Offsets are
// those of Microsoft's "FAT: General Overview of On-Disk Format" 1.03 (fatgen103).

// readWriterAt is a file.
type readWriterAt interface {
	io.ReaderAt
	io.WriterAt
}

// fat is a FAT32 volume.
type fat struct {
	f       readWriterAt
	start   int64 // of the volume
	data    int64 // of the first cluster
	cluster int64 // bytes of a cluster
	root    uint32
	info    [2]int64 // the FSInfo sectors
	next    []uint32 // the allocation table
	clock   [4]byte  // time and day, as entries hold them
}

// finishFAT mends the volume that starts at start:
//   - ".." of a folder in the root must be cluster 0; go-diskfs gives the root's own
//     number (a regression of its issue 70);
//   - FSInfo must tell how many clusters are free; go-diskfs leaves "unknown", which
//     fsck.vfat takes for damage;
//   - the serial number is 0 in its reproducible mode, and blkid then sees no UUID;
//   - times come from the environment (SOURCE_DATE_EPOCH) or the clock; here all are
//     epoch.
func finishFAT(f readWriterAt, start int64, serial uint32, epoch time.Time) error {
	v, err := openFAT(f, start)
	if err != nil {
		return err
	}
	v.setTime(epoch)
	if err := v.folder(v.root); err != nil {
		return err
	}
	if err := v.setFree(); err != nil {
		return err
	}
	number := binary.LittleEndian.AppendUint32(nil, max(serial, 1))
	for _, boot := range []int64{0, 6} { // the boot sector and its copy
		if _, err := f.WriteAt(number, start+boot*sector+67); err != nil {
			return err
		}
	}
	return nil
}

func openFAT(f readWriterAt, start int64) (*fat, error) {
	boot := make([]byte, sector)
	if _, err := f.ReadAt(boot, start); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	var (
		bytes    = int64(le.Uint16(boot[11:]))
		cluster  = int64(boot[13]) * bytes
		reserved = int64(le.Uint16(boot[14:])) * bytes
		table    = int64(le.Uint32(boot[36:])) * bytes
		data     = reserved + int64(boot[16])*table
		total    = int64(le.Uint32(boot[32:])) * bytes
		info     = int64(le.Uint16(boot[48:])) * bytes
		backup   = int64(le.Uint16(boot[50:])) * bytes
	)
	if bytes != sector || cluster == 0 || total <= data || table < 4*((total-data)/cluster+2) {
		return nil, errors.New("is no FAT32 volume")
	}
	raw := make([]byte, 4*((total-data)/cluster+2))
	if _, err := f.ReadAt(raw, start+reserved); err != nil {
		return nil, err
	}
	next := make([]uint32, len(raw)/4)
	for i := range next {
		next[i] = le.Uint32(raw[4*i:]) & 0x0fffffff // the high 4 bits are reserved
	}
	return &fat{
		f: f, start: start, data: start + data, cluster: cluster, root: le.Uint32(boot[44:]),
		info: [2]int64{start + info, start + backup + info}, next: next,
	}, nil
}

// setTime sets the time that folder will write. FAT starts in 1980.
func (v *fat) setTime(t time.Time) {
	t = t.UTC()
	if first := time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC); t.Before(first) {
		t = first
	}
	day := uint16(t.Year()-1980)<<9 | uint16(t.Month())<<5 | uint16(t.Day())
	clock := uint16(t.Hour())<<11 | uint16(t.Minute())<<5 | uint16(t.Second()/2)
	binary.LittleEndian.PutUint16(v.clock[0:], clock)
	binary.LittleEndian.PutUint16(v.clock[2:], day)
}

// folder mends the entries of a folder and of all below it.
func (v *fat) folder(first uint32) error {
	buf := make([]byte, v.cluster)
	seen := 0
	for c := first; c < 0x0ffffff8; c = v.next[c] {
		if c < 2 || int(c) >= len(v.next) || seen > len(v.next) {
			return errors.New("chain of clusters is broken")
		}
		seen++
		offset := v.data + int64(c-2)*v.cluster
		if _, err := v.f.ReadAt(buf, offset); err != nil {
			return err
		}
		below, end := v.entries(buf)
		if _, err := v.f.WriteAt(buf, offset); err != nil {
			return err
		}
		for _, child := range below {
			if err := v.folder(child); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
	return nil
}

// entries mends one cluster of a folder. It gives the folders in it, and whether the
// folder ends here.
func (v *fat) entries(buf []byte) (below []uint32, end bool) {
	const (
		longName = 0x0f
		isFolder = 0x10
		deleted  = 0xe5
	)
	le := binary.LittleEndian
	for ; len(buf) >= 32; buf = buf[32:] {
		e := buf[:32]
		switch {
		case e[0] == 0:
			return below, true
		case e[0] == deleted || e[11] == longName:
			continue
		}
		e[13] = 0                   // hundredths of the creation time
		copy(e[14:], v.clock[:])    // created
		copy(e[18:20], v.clock[2:]) // read, on that day
		copy(e[22:], v.clock[:])    // written
		if e[11]&isFolder == 0 {
			continue
		}
		child := uint32(le.Uint16(e[20:]))<<16 | uint32(le.Uint16(e[26:]))
		switch string(e[:11]) {
		case ".          ":
		case "..         ":
			if child == v.root {
				le.PutUint16(e[20:], 0)
				le.PutUint16(e[26:], 0)
			}
		default:
			below = append(below, child)
		}
	}
	return below, false
}

// setFree writes how many clusters are free and the last one in use to both FSInfos.
func (v *fat) setFree() error {
	var free, last uint32
	for c, next := range v.next[2:] {
		if next == 0 {
			free++
		} else {
			last = uint32(c + 2)
		}
	}
	b := binary.LittleEndian.AppendUint32(nil, free)
	b = binary.LittleEndian.AppendUint32(b, last)
	for _, info := range v.info {
		if _, err := v.f.WriteAt(b, info+488); err != nil {
			return err
		}
	}
	return nil
}
