package source

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"atoll/bundle/bounds"
)

const (
	// trailer is the zeros that a tar ends in, in bytes.
	trailer = 1024
)

// ReadArchive reads a tar, bare or packed by gzip or zstd, to its end. A folder that
// all the rest is in, like the one of GitHub's archives, is taken away. keep is the
// folder whose content the tree keeps, under the paths it has from the tree's root;
// empty keeps all. An archive that was cut gives [io.ErrUnexpectedEOF].
func ReadArchive(r io.Reader, keep string) (*Tree, error) {
	t, err := readArchive(r, keep, defaults)
	if err != nil {
		return nil, fmt.Errorf("reading archive: %w", err)
	}
	return t, nil
}

func readArchive(r io.Reader, keep string, l limits) (*Tree, error) {
	b, err := newBuilder(keep, l)
	if err != nil {
		return nil, err
	}
	// Packed bytes are bounded too: there are endless ones that unpack to nothing.
	packed := bufio.NewReader(&bounded{r: r, left: l.unpacked})
	magic, err := packed.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	var plain io.Reader = packed
	switch {
	case bytes.HasPrefix(magic, []byte("\x1f\x8b")):
		if plain, err = gzip.NewReader(packed); err != nil {
			return nil, err
		}
	case bytes.Equal(magic, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(bounds.Window))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		plain = z
	}
	if err := b.readTar(plain); err != nil {
		return nil, err
	}
	return b.tree(true)
}

// Open reads what [Tree.Pack] wrote. The hash is that of what was kept.
func Open(r io.Reader) (*Tree, error) {
	b, err := newBuilder("", defaults)
	if err != nil {
		return nil, err
	}
	if err := b.readTar(bufio.NewReader(r)); err != nil {
		return nil, fmt.Errorf("reading packed tree: %w", err)
	}
	return b.tree(false)
}

// readTar adds all of a tar.
func (b *builder) readTar(r io.Reader) error {
	in := &bounded{r: r, left: b.unpacked}
	for tr := tar.NewReader(in); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if errors.Is(err, tar.ErrHeader) {
			return fmt.Errorf("it is no sound tar, bare or packed by gzip or zstd: %w", err)
		}
		if err != nil {
			return err
		}
		if err := b.addTar(h, tr); err != nil {
			return err
		}
	}
	// To the end: only there does gzip tell whether all was right.
	in.left = min(in.left, bounds.SourcePadding)
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	if in.zeros < trailer {
		return fmt.Errorf("it does not end as a tar does: %w", io.ErrUnexpectedEOF)
	}
	return nil
}

func (b *builder) addTar(h *tar.Header, r io.Reader) error {
	name := strings.TrimPrefix(h.Name, "./")
	switch h.Typeflag {
	case tar.TypeXGlobalHeader: // git's note of the commit
		return nil
	case tar.TypeDir:
		if name = strings.TrimSuffix(name, "/"); name == "" || name == "." {
			return nil
		}
		return b.add(name, modeFolder, nil)
	case tar.TypeSymlink:
		return b.add(name, modeLink, []byte(h.Linkname))
	case tar.TypeReg:
		data, err := b.content(name, h.Size, r)
		if err != nil {
			return err
		}
		return b.add(name, fileMode(h.Mode), data)
	}
	return refuse("%.100q is no file, folder or symbolic link, but of tar's type %q", h.Name, h.Typeflag)
}

// content reads a file of a known size.
func (b *builder) content(name string, size int64, r io.Reader) ([]byte, error) {
	if size > b.file {
		return nil, refuse("%.100q has more than %d MiB", name, b.file>>20)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("reading %.100q: %w", name, err)
	}
	return data, nil
}

// fileMode is git's mode of a file with these permissions.
func fileMode(perm int64) string {
	if perm&0o100 != 0 {
		return modeExecutable
	}
	return modeFile
}

// Pack gives what the tree keeps as a tar. Trees that keep the same have the same bytes.
func (t *Tree) Pack() ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range t.entries {
		h := &tar.Header{Name: e.path, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(e.data)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		data := e.data
		switch e.mode {
		case modeExecutable:
			h.Mode = 0o755
		case modeLink:
			h.Typeflag, h.Mode, h.Size, h.Linkname, data = tar.TypeSymlink, 0o777, 0, string(e.data), nil
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("packing %q: %w", e.path, err)
		}
		if _, err := w.Write(data); err != nil {
			return nil, fmt.Errorf("packing %q: %w", e.path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("packing tree: %w", err)
	}
	return buf.Bytes(), nil
}

// bounded refuses to read on after so many bytes, and counts the zeros at its end.
type bounded struct {
	r     io.Reader
	left  int64
	zeros int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, refuse("it is too large, or grows without end")
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	zeros := n - len(bytes.TrimRight(p[:n], "\x00"))
	if zeros == n {
		zeros += b.zeros
	}
	b.zeros = zeros
	return n, err
}
