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
	name    string   // an image, a file or a package, for people
	also    []string // others that have it
	digest  v1.Hash
	size    int64
	sources []source
	spare   bool // good to have, and not needed
}

// localError is a failure of this machine, not of who is asked: a full disk.
// Asking anyone else is of no use.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

// fetch puts a download into the store. tr is told who sends it and how many more bytes are
// there, those of an earlier run included; fewer than none when they come again.
func (c *client) fetch(ctx context.Context, s *bundle.Store, d *download, tr *transfer) error {
	if d.size < 0 {
		return &bundle.CorruptError{Name: d.name, Want: d.digest, Err: fmt.Errorf("its manifest says that it has %d bytes", d.size)}
	}
	p, err := s.Partial(ctx, d.digest, d.size)
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return localError{fmt.Errorf("%s: %w", d.name, err)}
	case p == nil: // another process was quicker
		tr.add(d.size)
		return nil
	}
	defer p.Close()
	tr.add(p.Len())
	var errs []error
	for _, src := range d.sources {
		tr.from(src.host)
		err := c.fetchFrom(ctx, p, d, src, tr.add)
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
		errs = append(errs, &FetchError{Names: append([]string{d.name}, d.also...), Host: src.host, Err: err})
	}
	return worst(errs)
}

// worst is the error that tells the most, with what the others tell: what is gone at one
// source and corrupt at another is corrupt. All must be a [FetchError].
func worst(errs []error) error {
	var last *FetchError
	var others []*FetchError
	for _, err := range errs {
		var failed *FetchError
		var gone *GoneError
		errors.As(err, &failed)
		switch {
		case last == nil:
			last = failed
		case errors.As(err, &gone):
			others = append(others, failed)
		default:
			last, others = failed, append(others, last)
		}
	}
	if last == nil {
		return nil
	}
	last.others = others
	return last
}

// fetchFrom goes on with p at one source. What came stays when it fails, for the next
// source or the next run, unless it is corrupt.
func (c *client) fetchFrom(ctx context.Context, p *bundle.Partial, d *download, src source, moved func(int64)) error {
	name := d.name + " from " + src.host
	var err error
	for range bodyTries {
		r := c.checkedStream(ctx, src, p.Len(), d.size)
		err = fill(ctx, p, r, moved)
		r.Close()
		if err == nil {
			if err = p.Commit(); err == nil {
				return nil
			}
		}
		var corrupt *bundle.CorruptError
		var length *lengthError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &corrupt):
			moved(-d.size)
			err = &bundle.CorruptError{Name: name, Want: d.digest, Got: corrupt.Got}
		case errors.As(r.err, &length):
			err = &bundle.CorruptError{Name: name, Want: d.digest, Err: length}
			if p.Len() == d.size { // and more came
				moved(-d.size)
				if err := p.Restart(); err != nil {
					return localError{err}
				}
			}
		case errors.Is(r.err, io.ErrUnexpectedEOF) || errors.Is(r.err, io.EOF) && r.opens > 0:
			return &bundle.CorruptError{Name: name, Want: d.digest,
				Err: fmt.Errorf("cut short at %d of %d bytes, again and again", r.offset, d.size)}
		case notFound(r.err) || src.path != "" && isNotExist(r.err):
			_, who := blamed(r.err, src.host)
			return &GoneError{Name: d.name, Digest: d.digest, Host: who}
		case r.err != nil:
			return explain(r.err, d.name, src.host)
		default:
			return localError{fmt.Errorf("%s: %w", d.name, err)}
		}
		c.Log.Warn("content is corrupt, fetching it again", "name", d.name, "host", src.host, "digest", d.digest)
	}
	return err
}

// fill adds what r has to p, from the start again when r says so.
func fill(ctx context.Context, p *bundle.Partial, r io.Reader, moved func(int64)) error {
	counted := &counter{r: r, moved: moved}
	for {
		err := p.Fill(ctx, counted)
		if !errors.Is(err, errStartOver) {
			return err
		}
		moved(-p.Len())
		if err := p.StartOver(); err != nil {
			return err
		}
	}
}

// counter tells how much is read.
type counter struct {
	r     io.Reader
	moved func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.moved(int64(n))
	return n, err
}
