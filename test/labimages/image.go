package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// user runs every lab image; "nobody" of the images' own /etc/passwd.
const user = "65532:65532"

// epoch is the time of everything in an image: 2024-01-01.
var epoch = time.Unix(1704067200, 0).UTC()

// file is a regular file of a layer, or a folder where the path ends in "/".
type file struct {
	path string
	mode int64
	data []byte
}

// baseFiles is the layer that all but the pinned image begin with.
func baseFiles() []file {
	return []file{
		{"etc/", 0o755, nil},
		{"etc/group", 0o644, []byte("root:x:0:\nnonroot:x:65532:\n")},
		{"etc/passwd", 0o644, []byte("root:x:0:0:root:/:/none\nnonroot:x:65532:65532:nonroot:/:/none\n")},
		{"tmp/", 0o1777, nil},
	}
}

// layer makes a layer of files, the same bytes for the same files.
func layer(files []file, compress bool) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.data)),
			ModTime: epoch, Format: tar.FormatUSTAR,
		}
		if f.path[len(f.path)-1] == '/' {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("writing layer: %w", err)
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, fmt.Errorf("writing layer: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("writing layer: %w", err)
	}
	if !compress {
		return static.NewLayer(b.Bytes(), types.OCIUncompressedLayer), nil
	}
	return gzipLayer(b.Bytes())
}

// zipped is a compressed layer that still knows its uncompressed digest.
type zipped struct {
	v1.Layer
	diffID v1.Hash
}

func (z zipped) DiffID() (v1.Hash, error) { return z.diffID, nil }

func gzipLayer(data []byte) (v1.Layer, error) {
	diffID, _, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("compressing layer: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compressing layer: %w", err)
	}
	return zipped{static.NewLayer(b.Bytes(), types.OCILayer), diffID}, nil
}

// image makes an OCI image of layers for linux on arch.
func image(arch string, entrypoint []string, layers ...v1.Layer) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.ConfigFile(img, &v1.ConfigFile{
		Architecture: arch, OS: "linux", Created: v1.Time{Time: epoch},
		Config: v1.Config{User: user, Entrypoint: entrypoint},
		RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, fmt.Errorf("making image: %w", err)
	}
	adds := make([]mutate.Addendum, 0, len(layers))
	for _, l := range layers {
		mt, err := l.MediaType()
		if err != nil {
			return nil, fmt.Errorf("making image: %w", err)
		}
		adds = append(adds, mutate.Addendum{Layer: l, MediaType: mt, History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "labimages"}})
	}
	img, err = mutate.Append(img, adds...)
	if err != nil {
		return nil, fmt.Errorf("making image: %w", err)
	}
	return img, nil
}

// index makes one multi-arch image of one image for each architecture, in the order of archs.
func index(archs []string, images map[string]v1.Image) v1.ImageIndex {
	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range archs {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{
			Add:        images[arch],
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	return idx
}

// pinned is the multi-arch image whose digest is a constant: its layers hold a
// text and a program that no compiler made, and no compressor touched them.
func pinned() (v1.ImageIndex, error) {
	images := map[string]v1.Image{}
	for _, arch := range archs {
		l, err := layer([]file{
			{"README", 0o644, []byte("This image is pinned by the digest of its index. It waits for ever.\n")},
			{"pause", 0o755, pauseProgram(arch)},
		}, false)
		if err != nil {
			return nil, err
		}
		if images[arch], err = image(arch, []string{"/pause"}, l); err != nil {
			return nil, err
		}
	}
	return index(archs, images), nil
}
