package bundle

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Verify hashes every blob again and checks that index.json, root index and lock agree and that every
// image and file is complete. It tells all that is wrong: a [CorruptError] for each
// bad blob, [ErrIncomplete] for what is missing. The progress, which may be nil, is
// told in bytes.
func (b *Bundle) Verify(ctx context.Context, progress func(done, total int64)) error {
	_, err := b.CopyTo(ctx, io.Discard, progress)
	return err
}

// CopyTo copies the bundle byte for byte to w and gives the number of bytes written,
// which is Size if all went well. In the same pass it does what [Bundle.Verify] does.
func (b *Bundle) CopyTo(ctx context.Context, w io.Writer, progress func(done, total int64)) (int64, error) {
	out := &packWriter{ctx: ctx, w: w, total: b.size, progress: progress, buf: make([]byte, copySize)}
	errs := []error{b.check(false)}
	owners := sync.OnceValue(b.owners)
	for _, h := range b.order {
		s := b.blobs[h]
		if err := b.copyRange(out, out, out.done, s.offset); err != nil {
			return out.done, err
		}
		sum := sha256.New()
		if err := b.copyRange(out, io.MultiWriter(out, sum), s.offset, s.offset+s.size); err != nil {
			return out.done, err
		}
		if got := hashOf(sum); got != h {
			errs = append(errs, &CorruptError{Name: b.memberName(h) + cmp.Or(owners()[h], " (nothing that the root index lists)"), Want: h, Got: got})
		}
	}
	if err := b.copyRange(out, out, out.done, b.size); err != nil {
		return out.done, err
	}
	return out.done, errors.Join(errs...)
}

// owners says of each blob what it is part of, as far as what describes it can be read.
func (b *Bundle) owners() map[v1.Hash]string {
	owners := map[v1.Hash]string{b.root.Digest: " (root index)"}
	for _, d := range b.entries {
		if d.ArtifactType != "" {
			owners[d.Digest] = " (artifact " + d.ArtifactType + ")"
			owners[DigestOf(emptyConfig)] = " (config of artifacts)"
		}
	}
	for _, im := range b.images {
		parts, _ := b.walk(im) // what is missing has been told
		for _, d := range parts {
			owners[d.Digest] = " (image " + im.Name + ")"
		}
	}
	for _, f := range b.Files() {
		owners[f.Digest] = " (file " + f.Name + ")"
	}
	return owners
}

// copyRange copies bytes from, up to but not including to, to w, which ends at out.
func (b *Bundle) copyRange(out *packWriter, w io.Writer, from, to int64) error {
	n, err := copyContext(out.ctx, w, io.NewSectionReader(b.data, from, to-from), out.buf)
	if err == nil && n < to-from {
		err = fmt.Errorf("cut short at byte %d: %w", from+n, ErrIncomplete)
	}
	if err != nil {
		return fmt.Errorf("copying bundle %s: %w", b.path, err)
	}
	return nil
}

// Check compares index.json, root index, lock and blobs, as far as that takes no hashing of
// layers and files: it takes little time. Of [Bundle.Verify] it is the first part.
func (b *Bundle) Check() error { return b.check(true) }

// check may leave out blobs with another digest: CopyTo, which hashes them all, tells of them.
func (b *Bundle) check(corrupted bool) error {
	errs := slices.Concat(b.damage, b.checkTop())
	for _, a := range b.artifacts {
		for _, f := range a.Files {
			_, _, err := b.File(a.Type, f.Name)
			errs = append(errs, err)
		}
	}
	l, err := b.Lock()
	switch {
	case err == nil:
		errs = append(errs, b.checkNames(l)...)
	case len(b.damage) == 0:
		errs = append(errs, err)
	}
	for _, im := range b.images {
		_, missing := b.walk(im)
		errs = append(errs, missing...)
	}
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool {
		var corrupt *CorruptError
		return !corrupted && errors.As(err, &corrupt) && corrupt.Got != v1.Hash{}
	})...)
}

// checkTop compares index.json, which is what other tools read and has no digest of its
// own, with the root index.
func (b *Bundle) checkTop() []error {
	var errs []error
	title := func(d v1.Descriptor) string {
		if name := d.Annotations[refNameAnnotation]; name != "" {
			return "image " + name
		}
		return fmt.Sprintf("artifact %s (%s)", d.ArtifactType, d.Digest)
	}
	listed := map[string]v1.Descriptor{}
	for _, d := range b.top {
		if _, twice := listed[title(d)]; twice {
			errs = append(errs, fmt.Errorf("%s is in index.json twice", title(d)))
		}
		listed[title(d)] = d
	}
	for _, d := range b.entries {
		got, ok := listed[title(d)]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s is in the root index but not in index.json", title(d)))
		case got.Digest != d.Digest:
			errs = append(errs, fmt.Errorf("%s has digest %s in index.json, %s in the root index", title(d), got.Digest, d.Digest))
		case !reflect.DeepEqual(got, d):
			errs = append(errs, fmt.Errorf("%s is described otherwise in index.json than in the root index", title(d)))
		}
		delete(listed, title(d))
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		errs = append(errs, fmt.Errorf("%s is in index.json but not in the root index", name))
	}
	if d := b.root; d.Size != b.blobs[d.Digest].size || !d.MediaType.IsIndex() {
		errs = append(errs, errors.New("index.json describes the root index otherwise than it is"))
	}
	return errs
}

// checkNames compares the root index with the lock.
func (b *Bundle) checkNames(l *Lock) []error {
	var errs []error
	listed := map[string]v1.Hash{}
	for _, im := range b.images {
		listed[im.Name] = im.Digest
	}
	for _, im := range l.Images {
		digest, ok := listed[im.Reference]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("image %s is locked but not in the root index: %w", im.Reference, ErrIncomplete))
		case digest != im.Digest:
			errs = append(errs, fmt.Errorf("image %s has digest %s in the root index, %s in the lock", im.Reference, digest, im.Digest))
		}
		delete(listed, im.Reference)
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		errs = append(errs, fmt.Errorf("image %s is in the root index but not locked", name))
	}
	return errs
}

// Contents lists all of an image that is in the bundle: first what its name points
// at, then every manifest, config and layer below. If something of the platform's
// manifest is missing the error wraps [ErrIncomplete]; what is there is listed all
// the same.
func (b *Bundle) Contents(im Image) ([]v1.Descriptor, error) {
	found, errs := b.walk(im)
	return found, errors.Join(errs...)
}

func (b *Bundle) walk(im Image) ([]v1.Descriptor, []error) {
	t := tree{blobs: b, wanted: im.Manifest, spare: true}
	found, errs := t.walk(im.entry)
	for i, err := range errs {
		errs[i] = fmt.Errorf("image %s: %w", im.Name, err)
	}
	return found, errs
}
