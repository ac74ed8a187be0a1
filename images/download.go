package images

import (
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
)

// download is one blob to fetch, from any of its sources.
type download struct {
	name    string // an image, a file or a package, for people
	digest  v1.Hash
	size    int64
	sources []source
}

// localError is a failure of this machine, not of who is asked: a full disk.
// Asking anyone else is of no use.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

// fetch puts a download into the store. moved is told how many more bytes came;
// fewer than none when they come again.
func (c *client) fetch(ctx context.Context, s *bundle.Store, d *download, moved func(int64)) error {
	var errs []error
	for _, src := range d.sources {
		err := c.fetchFrom(ctx, s, d, src, moved)
		if err == nil {
			return nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		var local localError
		if errors.As(err, &local) {
			return err
		}
		errs = append(errs, err)
	}
	return worst(errs)
}

// worst is the error that tells the most: what is gone at one source and corrupt
// at another is corrupt.
func worst(errs []error) error {
	var last error
	for _, err := range errs {
		var gone *GoneError
		if last == nil || !errors.As(err, &gone) {
			last = err
		}
	}
	return last
}

func (c *client) fetchFrom(ctx context.Context, s *bundle.Store, d *download, src source, moved func(int64)) error {
	var err error
	for range bodyTries {
		r := c.stream(ctx, src, d.size)
		counted := &counter{r: r, moved: moved}
		err = s.Put(ctx, d.digest, d.size, counted)
		r.Close()
		if err == nil {
			return nil
		}
		moved(-counted.n)
		var corrupt *bundle.CorruptError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &corrupt):
			err = &bundle.CorruptError{Name: d.name + " from " + src.host, Want: d.digest, Got: corrupt.Got, Err: corrupt.Err}
		case errors.Is(r.err, io.ErrUnexpectedEOF):
			return &bundle.CorruptError{Name: d.name + " from " + src.host, Want: d.digest,
				Err: fmt.Errorf("cut short at %d of %d bytes, again and again", r.offset, d.size)}
		case notFound(r.err) || src.path != "" && isNotExist(r.err):
			return &GoneError{Name: d.name, Digest: d.digest, Host: src.host}
		case r.err != nil:
			return explain(r.err, d.name, src.host)
		default:
			return localError{fmt.Errorf("%s: %w", d.name, err)}
		}
		c.Log.Warn("content is corrupt, fetching it again", "name", d.name, "host", src.host, "digest", d.digest)
	}
	return err
}

// counter tells how much was read.
type counter struct {
	r     io.Reader
	n     int64
	moved func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.moved(int64(n))
	return n, err
}
