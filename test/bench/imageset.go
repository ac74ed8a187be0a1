package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math"
	"math/rand/v2"
	"net/url"
	"runtime"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// The set is as a stack of small images is: each has one of a few bases below a layer of
// its own. Sizes are log-normal, so that a few layers are most of the bytes.
const (
	imageCount = 105
	bases      = 6
	basesShare = 0.05    // of all distinct bytes; shared layers counted each time, it is nearly half
	spread     = 1.2     // sigma of the layers' sizes
	smallest   = 1 << 10 // bytes
)

// registryHost is the host in the images' names, and the path below the registry's URL
// that they are pushed to.
const registryHost = "bench.test"

// imageSet is what is mirrored.
type imageSet struct {
	names  []string // without the host
	images []v1.Image
	blobs  []blob // distinct: configs and layers
	bytes  int64  // of the blobs
	pulled int64  // bytes of the images, shared layers counted each time
}

// blob is a blob and a repository that has it, without the host.
type blob struct {
	repository string
	digest     v1.Hash
}

// planSet chooses layers whose sizes add up to about size bytes, always the same, the bases
// first. The image at i has the base at i modulo their number, and the layer behind.
func planSet(size int64) []*layer {
	r := rand.New(rand.NewPCG(105, 1))
	var layers []*layer
	add := func(n int, share float64) {
		weights, sum := make([]float64, n), 0.0
		for i := range weights {
			weights[i] = math.Exp(spread * r.NormFloat64())
			sum += weights[i]
		}
		for _, w := range weights {
			layers = append(layers, &layer{seed: uint64(len(layers)), content: smallest + int64(w/sum*share*float64(size))})
		}
	}
	add(bases, basesShare)
	add(imageCount, 1-basesShare)
	return layers
}

// newImageSet makes the images. Layers are kept as what makes them, not as bytes.
func newImageSet(ctx context.Context, size int64) (*imageSet, error) {
	layers := planSet(size)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	for _, l := range layers {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return l.measure()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	s := &imageSet{}
	seen := map[v1.Hash]bool{}
	for i, own := range layers[bases:] {
		repository := fmt.Sprintf("apps/app%03d", i)
		img, err := newImage(repository, layers[i%bases], own)
		if err != nil {
			return nil, fmt.Errorf("making image %s: %w", repository, err)
		}
		s.names, s.images = append(s.names, repository+":1.0"), append(s.images, img)
		m, err := img.Manifest()
		if err != nil {
			return nil, err
		}
		for _, d := range append(slices.Clone(m.Layers), m.Config) {
			s.pulled += d.Size
			if !seen[d.Digest] {
				seen[d.Digest] = true
				s.blobs = append(s.blobs, blob{repository, d.Digest})
				s.bytes += d.Size
			}
		}
	}
	return s, nil
}

func newImage(name string, layers ...*layer) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.ConfigFile(img, &v1.ConfigFile{
		Architecture: "amd64", OS: "linux", Config: v1.Config{Entrypoint: []string{"/" + name}}, RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	for _, made := range layers {
		l, err := partial.CompressedToLayer(made)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: types.OCILayer}); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// push pushes the set to a registry. A layer is uploaded once, to the first repository
// that has it, and mounted by the others.
func (s *imageSet) push(ctx context.Context, registry *url.URL) error {
	pusher, err := remote.NewPusher(remote.WithContext(ctx))
	if err != nil {
		return err
	}
	owners := map[v1.Hash]name.Reference{}
	for i, img := range s.images {
		ref, err := name.ParseReference(registry.Host + "/" + registryHost + "/" + s.names[i])
		if err != nil {
			return err
		}
		if err := pusher.Push(ctx, ref, mountable{img, owners}); err != nil {
			return fmt.Errorf("pushing %s: %w", s.names[i], err)
		}
		layers, err := img.Layers()
		if err != nil {
			return err
		}
		for _, l := range layers {
			digest, err := l.Digest()
			if err != nil {
				return err
			}
			if owners[digest] == nil {
				owners[digest] = ref
			}
		}
	}
	return nil
}

// mountable is an image that says where the registry has its layers already.
type mountable struct {
	v1.Image
	owners map[v1.Hash]name.Reference
}

func (m mountable) Layers() ([]v1.Layer, error) {
	layers, err := m.Image.Layers()
	if err != nil {
		return nil, err
	}
	out := slices.Clone(layers)
	for i, l := range out {
		digest, err := l.Digest()
		if err != nil {
			return nil, err
		}
		if owner := m.owners[digest]; owner != nil {
			out[i] = &remote.MountableLayer{Layer: l, Reference: owner}
		}
	}
	return out, nil
}

// layer is a gzip of a tar of one file that does not compress, made anew each time it is read.
type layer struct {
	seed    uint64
	content int64 // bytes of the file

	digest, diffID v1.Hash
	size           int64 // of the gzip
}

// measure finds out the digests and the size.
func (l *layer) measure() error {
	packed, plain := sha256.New(), sha256.New()
	size := &counter{w: packed}
	if err := l.write(size, plain); err != nil {
		return fmt.Errorf("making layer: %w", err)
	}
	l.digest, l.diffID, l.size = sum(packed), sum(plain), size.n
	return nil
}

func sum(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

// write writes the gzip to packed and the tar to plain. It stores and does not compress:
// making the set should not take longer than moving it.
func (l *layer) write(packed, plain io.Writer) error {
	gz, err := gzip.NewWriterLevel(packed, gzip.NoCompression)
	if err != nil {
		return err
	}
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], l.seed)
	tw := tar.NewWriter(io.MultiWriter(gz, plain))
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/lib/%d", l.seed), Mode: 0o644, Size: l.content}); err != nil {
		return err
	}
	if _, err := io.CopyN(tw, rand.NewChaCha8(seed), l.content); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return gz.Close()
}

// Compressed gives the bytes of the blob.
func (l *layer) Compressed() (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(l.write(w, io.Discard)) }()
	return r, nil
}

func (l *layer) Digest() (v1.Hash, error)            { return l.digest, nil }
func (l *layer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *layer) Size() (int64, error)                { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
