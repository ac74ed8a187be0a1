package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"atoll/bundle"
)

// image is one image of the release: a program at the root, or Debian's busybox with its applets.
type image struct {
	name    string
	program string // of the work folder
	path    string // in the image
	user    string
	applets []string
}

// The names are k3s's own; the add-ons of node/addons use them.
var images = []image{
	{name: "docker.io/rancher/local-path-provisioner:v0.0.30", program: "local-path-provisioner", path: "usr/bin/local-path-provisioner"},
	{name: "docker.io/rancher/mirrored-coredns-coredns:1.13.1", program: "coredns", path: "coredns"},
	{name: "docker.io/rancher/mirrored-library-busybox:1.37.0", path: "bin/busybox",
		applets: []string{"sh", "mkdir", "chmod", "rm", "ls", "cat", "du"}},
	{name: "docker.io/rancher/mirrored-metrics-server:v0.8.0", program: "metrics-server", path: "metrics-server", user: "1000"},
	{name: "docker.io/rancher/mirrored-pause:3.6", program: "pause", path: "pause", user: "65535:65535"},
}

// busybox is where Debian's package busybox-static has its program.
const busybox = "/bin/busybox"

// writeImages writes the images as k3s does, docker-save style with zstd around it, and returns their names.
func writeImages(work, out string) ([]string, error) {
	refs := map[name.Reference]v1.Image{}
	var names []string
	for _, i := range images {
		ref, err := name.ParseReference(i.name)
		if err != nil {
			return nil, err
		}
		img, err := i.build(work)
		if err != nil {
			return nil, fmt.Errorf("making %s: %w", i.name, err)
		}
		refs[ref] = img
		names = append(names, i.name)
	}
	slices.Sort(names)
	return names, bundle.WriteFile(out, func(f *os.File) error {
		// 8 MiB: k3s's reader takes no window of more than 32 MiB.
		z, err := zstd.NewWriter(f, zstd.WithWindowSize(8<<20), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		if err := tarball.MultiRefWrite(refs, z); err != nil {
			return err
		}
		return z.Close()
	})
}

func (i image) build(work string) (v1.Image, error) {
	file := filepath.Join(work, i.program)
	if i.program == "" {
		file = busybox
	}
	if err := checkStatic(file); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	if err := tw.WriteHeader(&tar.Header{Name: i.path, Mode: 0o755, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
		return nil, err
	}
	if _, err := tw.Write(data); err != nil {
		return nil, err
	}
	for _, a := range i.applets {
		if err := tw.WriteHeader(&tar.Header{Name: "bin/" + a, Linkname: "busybox", Mode: 0o777, Typeflag: tar.TypeSymlink}); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	// As docker save has them, not compressed: the whole tar is.
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(layer.Bytes(), types.DockerUncompressedLayer))
	if err != nil {
		return nil, err
	}
	config := v1.Config{User: i.user, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}
	if i.program != "" {
		config.Entrypoint = []string{"/" + i.path}
	}
	return mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: "amd64", Config: config,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: diffIDs(img)}})
}

func diffIDs(img v1.Image) []v1.Hash {
	c, err := img.ConfigFile()
	if err != nil {
		return nil // mutate.ConfigFile's result is then refused by its reader
	}
	return c.RootFS.DiffIDs
}

// checkStatic makes sure that a program needs no libraries: its image has none.
func checkStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is not statically linked (for busybox: apt-get install busybox-static)", path)
		}
	}
	return nil
}
