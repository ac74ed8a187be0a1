package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle/bounds"
)

// PackOptions are options of [Pack]. Nil is fine.
type PackOptions struct {
	// Key signs the bundle. Nil leaves it unsigned.
	Key Signer
	// Progress is told how many of the bundle's bytes are written.
	Progress func(done, total int64)
}

// Pack writes a bundle with the lock's images and the artifacts to path, whole or
// not at all. Their content must be in the store; artifacts must hold the lock (see
// [ArtifactLock]). Every blob is hashed while it is copied, so that a store gone bad
// never gets into a bundle: a bad blob gives a [CorruptError] and is removed from
// the store. Content that is not in the store gives an error that wraps [ErrIncomplete].
//
// Of an image that is an index the locked manifest is packed whole; of other
// manifests, also those of attestations, only manifest and config, if the store has
// them.
func Pack(ctx context.Context, path string, s *Store, l *Lock, artifacts []Artifact, o *PackOptions) error {
	if o == nil {
		o = &PackOptions{}
	}
	p := newPacker()
	p.store, p.copy = s, p.copyBlob
	if err := errors.Join(p.addArtifacts(l, artifacts), p.addImages(ctx, l)); err != nil {
		return fmt.Errorf("packing: %w", err)
	}
	root, err := encodeRoot(p.images, p.artifacts)
	if err != nil {
		return fmt.Errorf("packing: %w", err)
	}
	if err := p.pack(ctx, path, root, o); err != nil {
		return fmt.Errorf("packing: %w", err)
	}
	return nil
}

// packer collects what goes into a bundle.
type packer struct {
	store     *Store
	copy      func(context.Context, io.Writer, member, []byte) error // of a blob that was not made
	made      map[v1.Hash][]byte                                     // blobs that are not from the store
	blobs     map[v1.Hash]int64                                      // all blobs with their sizes
	images    []v1.Descriptor
	artifacts []v1.Descriptor
}

func newPacker() *packer {
	return &packer{made: map[v1.Hash][]byte{}, blobs: map[v1.Hash]int64{}}
}

// pack signs the root index if there is a key, and writes the bundle.
func (p *packer) pack(ctx context.Context, path string, root []byte, o *PackOptions) error {
	p.make(root)
	var signed *v1.Descriptor
	if o.Key != nil {
		d, err := p.sign(o.Key, DigestOf(root))
		if err != nil {
			return err
		}
		signed = &d
	}
	index, err := encodeTop(root, signed)
	if err != nil {
		return err
	}
	members, total, err := p.members(index)
	if err != nil {
		return err
	}
	return WriteFile(path, func(f *os.File) error {
		if err := checkSpace(f, total); err != nil {
			return err
		}
		w := &packWriter{ctx: ctx, w: f, total: total, progress: o.Progress, buf: make([]byte, copySize)}
		return p.write(w, members)
	})
}

func (p *packer) make(data []byte) v1.Hash {
	h := DigestOf(data)
	p.made[h], p.blobs[h] = data, int64(len(data))
	return h
}

func (p *packer) addArtifacts(l *Lock, artifacts []Artifact) error {
	lock, err := l.Encode()
	if err != nil {
		return err
	}
	var errs []error
	locked := false
	for _, a := range artifacts {
		d, manifest, err := a.manifest()
		if err != nil {
			return err
		}
		p.make(emptyConfig)
		p.make(manifest)
		p.artifacts = append(p.artifacts, d)
		for _, f := range a.Files {
			locked = locked || a.Type == ArtifactLock && f.Digest == DigestOf(lock)
			if err := p.addFile(f); err != nil {
				errs = append(errs, fmt.Errorf("artifact %s: file %q: %w", a.Type, f.Name, err))
			}
		}
	}
	if !locked {
		errs = append(errs, fmt.Errorf("no artifact %s with this lock: %w", ArtifactLock, ErrIncomplete))
	}
	return errors.Join(errs...)
}

func (p *packer) addFile(f File) error {
	size, ok := p.store.stat(f.Digest)
	if !ok {
		return fmt.Errorf("blob %s is missing: %w", f.Digest, ErrIncomplete)
	}
	if size != f.Size {
		return &CorruptError{Name: "blob", Want: f.Digest, Err: fmt.Errorf("has %d bytes, want %d", size, f.Size)}
	}
	p.blobs[f.Digest] = size
	return nil
}

func (p *packer) addImages(ctx context.Context, l *Lock) error {
	var errs []error
	names := map[string]v1.Hash{}
	for _, im := range l.Images {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := refName(im.Reference)
		if other, ok := names[name]; ok && other != im.Digest {
			errs = append(errs, fmt.Errorf("image %s: locked as %s and as %s", im.Reference, other, im.Digest))
		} else if ok {
			continue
		}
		names[name] = im.Digest
		d, wrong := p.addImage(im)
		for _, err := range wrong {
			errs = append(errs, fmt.Errorf("image %s: %w", im.Reference, err))
		}
		if len(wrong) == 0 {
			p.images = append(p.images, named(d, name))
		}
	}
	return errors.Join(errs...)
}

// addImage returns the image's entry of the root index, or all that is wrong with it.
func (p *packer) addImage(im LockedImage) (v1.Descriptor, []error) {
	if _, ok := p.store.stat(im.Digest); !ok {
		return v1.Descriptor{}, []error{fmt.Errorf("blob %s is missing: %w", im.Digest, ErrIncomplete)}
	}
	data, err := p.store.load(im.Digest)
	if err != nil {
		return v1.Descriptor{}, []error{err}
	}
	root, err := describe(data)
	if err != nil {
		return v1.Descriptor{}, []error{fmt.Errorf("blob %s: %w", im.Digest, err)}
	}
	t := tree{blobs: p.store, wanted: im.Manifest}
	found, errs := t.walk(root)
	for _, d := range found {
		p.blobs[d.Digest] = d.Size
	}
	if len(errs) == 0 && root.MediaType.IsImage() {
		if root.Platform, err = p.platform(data); err != nil {
			errs = append(errs, err)
		}
	}
	return root, errs
}

// platform is that of a plain manifest, by its config; nil if that does not say, as
// the config of what is no image does not.
func (p *packer) platform(manifest []byte) (*v1.Platform, error) {
	var m imageManifest
	if err := parse(manifest, &m); err != nil {
		return nil, err
	}
	if m.Config.Size > bounds.Manifest {
		return nil, nil
	}
	config, err := p.store.load(m.Config.Digest)
	if err != nil {
		return nil, err
	}
	var c v1.Platform // the config has the same field names
	if json.Unmarshal(config, &c) != nil || c.OS == "" || c.Architecture == "" {
		return nil, nil
	}
	return &v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant, OSVersion: c.OSVersion}, nil
}

// member is one file of the tar.
type member struct {
	header *tar.Header
	data   []byte  // the content, or nil:
	blob   v1.Hash // it is this blob, to be copied
}

// members lists the tar's files in order, and the tar's exact size in bytes.
func (p *packer) members(index []byte) ([]member, int64, error) {
	list := []member{
		{header: header(layoutMember, int64(len(layoutData))), data: []byte(layoutData)},
		{header: header(indexMember, int64(len(index))), data: index},
	}
	for _, h := range slices.SortedFunc(maps.Keys(p.blobs), func(a, b v1.Hash) int { return cmpHash(a, b) }) {
		list = append(list, member{header: header(blobPrefix+h.Hex, p.blobs[h]), data: p.made[h], blob: h})
	}
	total := int64(tarEnd)
	for _, m := range list {
		var head bytes.Buffer // archive/tar knows best how long it gets: a large size takes more blocks
		if err := tar.NewWriter(&head).WriteHeader(m.header); err != nil {
			return nil, 0, fmt.Errorf("sizing %s: %w", m.header.Name, err)
		}
		total += int64(head.Len()) + padded(m.header.Size)
	}
	return list, total, nil
}

const (
	tarBlock = 512
	tarEnd   = 2 * tarBlock // the zeros that end a tar
)

func padded(n int64) int64 { return (n + tarBlock - 1) / tarBlock * tarBlock }

// header is the same whoever packs whenever. The time is the Unix epoch: the name of
// a blob says all about it, and any other time would make equal blobs of two bundles
// differ for tools that look for what changed.
func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}
}

func (p *packer) write(w *packWriter, members []member) error {
	tw := tar.NewWriter(w)
	for _, m := range members {
		if err := tw.WriteHeader(m.header); err != nil {
			return err
		}
		if m.data != nil {
			if _, err := tw.Write(m.data); err != nil {
				return err
			}
		} else if err := p.copy(w.ctx, tw, m, w.buf); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	if w.done != w.total {
		return fmt.Errorf("wrote %d bytes, expected %d", w.done, w.total)
	}
	return nil
}

func (p *packer) copyBlob(ctx context.Context, w io.Writer, m member, buf []byte) error {
	f, err := p.store.Open(m.blob)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("blob %s vanished from the store: %w", m.blob, ErrIncomplete)
		}
		return err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := copyContext(ctx, io.MultiWriter(w, sum), io.LimitReader(f, m.header.Size), buf)
	if err != nil {
		return fmt.Errorf("copying blob %s: %w", m.blob, err)
	}
	got := hashOf(sum)
	if n == m.header.Size && got == m.blob {
		return nil
	}
	corrupt := &CorruptError{Name: p.store.Path(m.blob), Want: m.blob, Got: got}
	if n < m.header.Size {
		corrupt.Got, corrupt.Err = v1.Hash{}, fmt.Errorf("cut short at %d of %d bytes", n, m.header.Size)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(corrupt, err)
	}
	return errors.Join(corrupt, p.store.discard(m.blob, info))
}

// packWriter counts bytes, tells progress and stops when the context is done.
type packWriter struct {
	ctx         context.Context
	w           io.Writer
	done, total int64
	progress    func(done, total int64)
	buf         []byte // for copying what is written
}

func (w *packWriter) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.w.Write(b)
	w.done += int64(n)
	if w.progress != nil {
		w.progress(w.done, w.total)
	}
	return n, err
}

// checkSpace fails if the file's file system has less than need bytes left.
func checkSpace(f *os.File, need int64) error {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("asking for free space: %w", err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return fmt.Errorf("%d MiB needed, %d MiB free: %w", need>>20+1, free>>20, syscall.ENOSPC)
	}
	return nil
}

func cmpHash(a, b v1.Hash) int { return bytes.Compare([]byte(a.Hex), []byte(b.Hex)) }
