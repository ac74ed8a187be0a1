package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layoutVersion is a part of each image's key: raise it when the same row is to make
// another image.
const layoutVersion = "1"

// epoch is the time of everything in an image: 2024-01-01.
var epoch = time.Unix(1704067200, 0).UTC()

// fastest is gzip's level: images are made often and sent over loopback.
const fastest = 1

// assemble makes the image of a row, of one layer.
func (b *builder) assemble(ctx context.Context, i image) (v1.Image, error) {
	l := newLayer()
	if err := b.fill(ctx, l, i); err != nil {
		return nil, err
	}
	if err := l.w.Close(); err != nil {
		return nil, err
	}
	content, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(l.data.Bytes())), nil
	}, tarball.WithCompressionLevel(fastest), tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		Architecture: "amd64", OS: "linux", Created: v1.Time{Time: epoch}, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			User: i.user, Entrypoint: i.entrypoint, Cmd: i.cmd, WorkingDir: i.workDir,
			Env:    append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, i.env...),
			Labels: map[string]string{"atoll.test/kind": i.kind.String()},
		},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(img, mutate.Addendum{
		Layer: content, MediaType: types.OCILayer,
		History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "test/programs"},
	})
}

// fill writes an image's files: Debian's packages, Python's, the base, the programs, upstream's files.
func (b *builder) fill(ctx context.Context, l *layer, i image) error {
	if len(i.debian) > 0 {
		if err := b.debian(ctx, l, i.debian); err != nil {
			return err
		}
	}
	if i.python != "" {
		if err := b.python(ctx, l, i.python); err != nil {
			return err
		}
	}
	base := baseFiles(i.user)
	for _, name := range slices.Sorted(maps.Keys(base)) {
		if err := l.file(name, 0o644, []byte(base[name])); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(i.folders)) {
		if err := l.dir(name, i.folders[name]); err != nil {
			return err
		}
	}
	if err := l.dir("tmp", 0o1777); err != nil {
		return err
	}
	for _, programs := range []map[string]string{i.programs, i.own} {
		for _, where := range slices.Sorted(maps.Keys(programs)) {
			if err := l.program(where, b.program(filepath.Base(programs[where]))); err != nil {
				return err
			}
		}
	}
	if i.envoy != "" {
		if err := l.program(i.envoy, b.program("envoy")); err != nil {
			return err
		}
	}
	for _, where := range slices.Sorted(maps.Keys(i.upstream)) {
		source, err := b.sources(ctx, i)
		if err != nil {
			return err
		}
		if err := l.tree(where, filepath.Join(source, i.upstream[where])); err != nil {
			return err
		}
	}
	for _, where := range slices.Sorted(maps.Keys(i.links)) {
		if err := l.link(where, i.links[where]); err != nil {
			return err
		}
	}
	return nil
}

// sources is the folder of the sources that an image's upstream files come from.
func (b *builder) sources(ctx context.Context, i image) (string, error) {
	for _, name := range i.programs {
		p, err := programNamed(name)
		if err != nil {
			return "", err
		}
		return p.sources(ctx)
	}
	return "", fmt.Errorf("no module has upstream's files of %s", i.wants[0])
}

// baseFiles are what programs expect of any root file system: users, and that /etc/hosts
// is asked before a name server.
func baseFiles(user string) map[string]string {
	passwd := "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nnonroot:x:65532:65532:nonroot:/:/bin/false\n"
	group := "root:x:0:\nnogroup:x:65534:\nnonroot:x:65532:\n"
	uid, _, _ := strings.Cut(user, ":")
	if uid != "" && uid != "0" && uid != "65532" {
		passwd += fmt.Sprintf("user:x:%s:%s:user:/:/bin/false\n", uid, uid)
		group += fmt.Sprintf("user:x:%s:\n", uid)
	}
	return map[string]string{"etc/passwd": passwd, "etc/group": group, "etc/nsswitch.conf": "hosts: files dns\n"}
}

// layer is a layer's tar file as it is written. Folders that are missing are made; of two
// files with one name the first stays.
type layer struct {
	data bytes.Buffer
	w    *tar.Writer
	have map[string]bool
}

func newLayer() *layer {
	l := &layer{have: map[string]bool{}}
	l.w = tar.NewWriter(&l.data)
	return l
}

// add writes a header and its content. The name has no slash at either end.
func (l *layer) add(h *tar.Header, content io.Reader) error {
	if !fs.ValidPath(h.Name) || h.Name == "." {
		return fmt.Errorf("%q is no path of an image", h.Name)
	}
	if l.have[h.Name] {
		return nil
	}
	if parent := path.Dir(h.Name); parent != "." {
		if err := l.dir(parent, 0o755); err != nil {
			return err
		}
	}
	l.have[h.Name] = true
	h.ModTime, h.Format = epoch, tar.FormatPAX
	if h.Typeflag == tar.TypeDir {
		h.Name += "/"
	}
	if err := l.w.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	_, err := io.Copy(l.w, content)
	return err
}

func (l *layer) dir(name string, mode int64) error {
	return l.add(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, nil)
}

func (l *layer) file(name string, mode int64, data []byte) error {
	return l.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}, bytes.NewReader(data))
}

func (l *layer) link(name, target string) error {
	return l.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

func (l *layer) program(name, from string) error { return l.copy(name, from, 0o755) }

func (l *layer) copy(name, from string, mode int64) (err error) {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return l.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: info.Size()}, f)
}

// tree copies a file, or a folder with all that is below it.
func (l *layer) tree(name, from string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		to := path.Join(name, filepath.ToSlash(rel))
		switch {
		case d.IsDir():
			return l.dir(to, 0o755)
		case d.Type().IsRegular():
			return l.copy(to, p, 0o644)
		}
		return nil
	})
}
