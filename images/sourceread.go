package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
	"atoll/bundle/bounds"
	sourcetree "atoll/bundle/source"
)

// damageError says that content came cut or corrupt, again and again.
type damageError struct{ error }

func (e damageError) Unwrap() error { return e.error }

// read reads a source and tells who had it: a place on disk or a host. Of a file, bytes
// of another digest than want are asked for again; they may be the connection's fault.
func (c *sourceClient) read(ctx context.Context, src bundle.Source, want v1.Hash) (tree *sourcetree.Tree, place string, err error) {
	if place := c.places[src.Name]; place != "" {
		tree, err := readPlace(src, place)
		return tree, place, err
	}
	from, err := c.upstream(src)
	if err != nil {
		return nil, "", err
	}
	for try := 1; try <= bodyTries; try++ {
		r := c.stream(ctx, from, -1)
		tree, err = readBody(src, r)
		r.Close()
		switch {
		case ctx.Err() != nil:
			return nil, from.host, context.Cause(ctx)
		case errors.Is(r.err, io.ErrUnexpectedEOF):
			err = damageError{fmt.Errorf("cut short at %d bytes, again and again: %w", r.offset, r.err)}
			return nil, from.host, withPlace(explain(err, "source "+src.Name, from.host), src)
		case r.err != nil:
			return nil, from.host, withPlace(explain(r.err, "source "+src.Name, from.host), src)
		case errors.Is(err, sourcetree.ErrRefused):
			return nil, from.host, withPlace(explain(err, "source "+src.Name, from.host), src)
		case err == nil && (src.URL == "" || want.Hex == "" || try == bodyTries || bundle.DigestOf(onlyFile(tree)) == want):
			return tree, from.host, nil
		}
		c.Log.Warn("content is corrupt, fetching it again", "name", "source "+src.Name, "host", from.host)
	}
	return nil, from.host, withPlace(explain(damageError{err}, "source "+src.Name, from.host), src)
}

// upstream is where a source's URL, or the mirror of its host, has it.
func (c *sourceClient) upstream(src bundle.Source) (source, error) {
	u, err := url.Parse(src.Archive())
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return source{}, fmt.Errorf("source %s: %q is not a URL like https://HOST/PATH", src.Name, src.Archive())
	}
	return c.loginSource(u.String(), src.Name+"=PATH"), nil
}

// readPlace reads a source on disk.
func readPlace(src bundle.Source, place string) (*sourcetree.Tree, error) {
	info, err := os.Stat(place)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", src.Name, err)
	}
	var tree *sourcetree.Tree
	switch {
	case info.IsDir() && src.URL != "":
		err = errors.New("it is a folder, not a file")
	case info.IsDir():
		tree, err = sourcetree.ReadFolder(place, src.Path)
	case !info.Mode().IsRegular():
		err = errors.New("it is neither a folder nor a file")
	default:
		tree, err = readPlaceFile(src, place)
	}
	if err != nil {
		return nil, fmt.Errorf("source %s from %s: %w", src.Name, place, err)
	}
	return tree, nil
}

func readPlaceFile(src bundle.Source, place string) (*sourcetree.Tree, error) {
	f, err := bundle.OpenRegular(place)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBody(src, f)
}

// readBody reads a source from what its URL gives.
func readBody(src bundle.Source, r io.Reader) (*sourcetree.Tree, error) {
	if src.URL == "" {
		return sourcetree.ReadArchive(r, src.Path)
	}
	return readFile(src.URL, r)
}

// readFile reads the file of a URL. The tree has it by the URL's last part.
func readFile(from string, r io.Reader) (*sourcetree.Tree, error) {
	u, err := url.Parse(from)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, bounds.SourceFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > bounds.SourceFile {
		return nil, fmt.Errorf("%w: it has more than %d MiB", sourcetree.ErrRefused, bounds.SourceFile>>20)
	}
	return sourcetree.FromFile(path.Base(u.Path), data), nil
}
