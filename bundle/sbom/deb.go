package sbom

import (
	"archive/tar"
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"

	"atoll/bundle/bounds"
)

// deb is what a bill of materials tells of a Debian package (deb(5)).
type deb struct {
	Package      string `json:"package"`
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	Source       string `json:"source,omitempty"` // field of that name; empty if it is called like the package
	// Copyright is the content of /usr/share/doc/PACKAGE/copyright.
	Copyright string `json:"copyright,omitempty"`
	// Link is the absolute path that is to be read in its place, if it or its folder is
	// a symbolic link.
	Link string `json:"link,omitempty"`
	// Lack says why there is neither.
	Lack string `json:"lack,omitempty"`
}

var errTooLarge = errors.New("unpacks to more than is believed")

// readDeb reads a package of size bytes. What is no package, or is cut short before what
// is wanted of it, is an error; a package without a copyright file that can be found is not.
func readDeb(ctx context.Context, r io.ReaderAt, size int64) (*deb, error) {
	a := &arReader{r: r, size: size}
	if err := a.magic(); err != nil {
		return nil, err
	}
	var d *deb
	for {
		name, content, err := a.next()
		if err == io.EOF {
			return nil, errors.New("is no Debian package: it has no control.tar or no data.tar")
		}
		if err != nil {
			return nil, err
		}
		stem, compression, _ := strings.Cut(name, ".tar")
		switch {
		case stem == "control" && d == nil:
			if d, err = readControl(ctx, content, compression); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		case stem == "data" && d != nil:
			if err := d.readData(ctx, content, compression, bounds.DebUnpacked); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			return d, nil
		}
	}
}

// arReader reads the members of an ar(5) archive.
type arReader struct {
	r        io.ReaderAt
	at, size int64
}

func (a *arReader) magic() error {
	const magic = "!<arch>\n"
	head := make([]byte, len(magic))
	if _, err := a.r.ReadAt(head, 0); err != nil && err != io.EOF {
		return err
	}
	if string(head) != magic {
		return errors.New("is no Debian package: it does not begin as an ar archive")
	}
	a.at = int64(len(magic))
	return nil
}

// next gives the next member; [io.EOF] after the last.
func (a *arReader) next() (string, io.Reader, error) {
	const length = 60
	if a.at >= a.size {
		return "", nil, io.EOF
	}
	h := make([]byte, length)
	if n, err := a.r.ReadAt(h, a.at); n < length {
		if err == nil || err == io.EOF {
			err = fmt.Errorf("is cut short at byte %d: %w", a.at, io.ErrUnexpectedEOF)
		}
		return "", nil, err
	}
	name := strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
	size, err := strconv.ParseUint(strings.TrimRight(string(h[48:58]), " "), 10, 62)
	if err != nil || string(h[58:]) != "`\n" {
		return "", nil, fmt.Errorf("is no Debian package: byte %d is no head of a member", a.at)
	}
	start := a.at + length
	if int64(size) > a.size-start {
		return "", nil, fmt.Errorf("is cut short in %q: %w", name, io.ErrUnexpectedEOF)
	}
	a.at = start + int64(size) + int64(size)%2
	return name, io.NewSectionReader(a.r, start, int64(size)), nil
}

// unpack calls read with what r holds when it is decompressed, of which it can read limit bytes.
func unpack(ctx context.Context, r io.Reader, compression string, limit int64, read func(*tar.Reader) error) error {
	r = bufio.NewReaderSize(r, 64<<10)
	switch compression {
	case "":
	case ".gz":
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		r = z
	case ".xz":
		z, err := xz.NewReader(r, bounds.Window)
		if err != nil {
			return err
		}
		r = z
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(bounds.Window))
		if err != nil {
			return err
		}
		defer z.Close()
		r = z
	case ".bz2":
		r = bzip2.NewReader(r)
	default:
		return fmt.Errorf("is compressed as %q, which is none of gz, xz, zst and bz2", compression)
	}
	return read(tar.NewReader(&bounded{ctx: ctx, r: r, left: limit}))
}

// bounded reads no more than so much of r, and ends with its context.
type bounded struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.left <= 0 {
		return 0, errTooLarge
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// readControl reads the fields of a package.
func readControl(ctx context.Context, r io.Reader, compression string) (d *deb, err error) {
	err = unpack(ctx, r, compression, bounds.DebControl, func(tr *tar.Reader) error {
		for {
			h, err := tr.Next()
			if err == io.EOF {
				return errors.New("has no file control")
			}
			if err != nil {
				return err
			}
			if path.Clean("/"+h.Name) != "/control" || h.Typeflag != tar.TypeReg {
				continue
			}
			text, ok, err := readText(tr, h.Size, bounds.DebFields)
			if err != nil {
				return err
			}
			fields, err := paragraphs(text)
			if err != nil || len(fields) != 1 || !ok {
				return errors.Join(errors.New("its file control is no list of fields"), err)
			}
			f := fields[0]
			d = &deb{Package: f["package"], Version: f["version"], Architecture: f["architecture"], Source: f["source"]}
			return nil
		}
	})
	return d, err
}

// readText reads a file; false if it is larger than limit.
func readText(r io.Reader, size, limit int64) (string, bool, error) {
	if size > limit {
		return "", false, nil
	}
	data, err := io.ReadAll(io.LimitReader(r, size))
	return strings.ToValidUTF8(string(data), "\uFFFD"), true, err
}

// readData finds the copyright file, or where it is said to be.
func (d *deb) readData(ctx context.Context, r io.Reader, compression string, limit int64) error {
	err := unpack(ctx, r, compression, limit, d.findCopyright)
	if errors.Is(err, errTooLarge) {
		d.Lack = fmt.Sprintf("no copyright file in the first %d bytes of its files", limit)
		return nil
	}
	return err
}

const docs = "/usr/share/doc"

func (d *deb) findCopyright(tr *tar.Reader) error {
	folder := docs + "/" + d.Package
	file := folder + "/copyright"
	for {
		h, err := tr.Next()
		if err == io.EOF {
			if d.Link == "" {
				d.Lack = "it has no copyright file"
			}
			return nil
		}
		if err != nil {
			return err
		}
		at := path.Clean("/" + h.Name)
		switch {
		case at == file && h.Typeflag == tar.TypeReg:
			var ok bool
			if d.Copyright, ok, err = readText(tr, h.Size, bounds.Copyright); !ok {
				d.Lack = fmt.Sprintf("its copyright file has more than %d bytes", int64(bounds.Copyright))
			}
			d.Link = ""
			return err
		case at == file && h.Typeflag == tar.TypeSymlink:
			d.Link = target(folder, h.Linkname)
		case at == file && h.Typeflag == tar.TypeLink:
			d.Link = target("/", h.Linkname)
		case at == folder && h.Typeflag == tar.TypeSymlink:
			d.Link = target(docs, h.Linkname) + "/copyright"
		}
	}
}

// target is where a link in a folder points.
func target(folder, link string) string {
	if path.IsAbs(link) {
		return path.Clean(link)
	}
	return path.Clean(folder + "/" + link)
}
