package images

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"atoll/bundle"
)

// source is a place that content can be read from.
type source struct {
	host string // who has it, for errors
	path string // a file on disk, or
	url  string // a URL, asked by
	http func(context.Context) (*http.Client, error)
}

// plainSource is a URL that needs no login, or what the mirror of its host has.
func (c *client) plainSource(u string) source {
	host := u
	if parsed, err := url.Parse(u); err == nil {
		if to := c.mirrors[hostName(parsed.Host)]; to != nil {
			query := parsed.RawQuery
			parsed = to.JoinPath(parsed.EscapedPath())
			parsed.RawQuery = query
			u = parsed.String()
		}
		host = parsed.Host
	}
	return source{host: host, url: u, http: func(context.Context) (*http.Client, error) { return c.http, nil }}
}

// blob is a blob's source.
func (r *repository) blob(digest fmt.Stringer) source {
	return source{host: r.host, url: r.base + "blobs/" + digest.String(), http: r.client}
}

// body is what a source sends.
type body struct {
	io.ReadCloser
	from  int64  // offset of the first byte
	total int64  // length of the whole, as the source says; -1 if it does not
	tag   string // names this version of the whole; may be empty
}

// part is what to ask a source for.
type part struct {
	offset int64  // first byte
	size   int64  // of the whole; -1 if not known
	tag    string // the version that is wanted; empty for any
}

// A rangeError is the answer of a server that gives no part of the content, or not the
// one that was asked for. It may still give the whole.
type rangeError struct {
	part part
	got  string
}

func (e *rangeError) Error() string {
	return fmt.Sprintf("asking for bytes from %d on: got %s", e.part.offset, e.got)
}

// A lengthError says that a server has content of another length than it must be.
type lengthError struct{ got, want int64 }

func (e *lengthError) Error() string {
	return fmt.Sprintf("it has %d bytes, not %d: push it again", e.got, e.want)
}

// open asks for a part. A server that cannot give it may give the whole: see [body.from].
func (s source) open(ctx context.Context, p part) (*body, error) {
	if s.path != "" {
		return s.openFile(p)
	}
	hc, err := s.http(ctx)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	// What is hashed is what is stored: no transfer compression.
	req.Header.Set("Accept-Encoding", "identity")
	if p.offset > 0 {
		req.Header.Set("Range", p.header())
		if p.tag != "" {
			req.Header.Set("If-Range", p.tag)
		}
	}
	resp, err := hc.Do(req)
	if err != nil {
		hideQuery(err)
		return nil, err
	}
	b, err := p.answer(resp)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return b, nil
}

// header is closed where it can be: some registries refuse an open range.
func (p part) header() string {
	if p.size > 0 {
		return fmt.Sprintf("bytes=%d-%d", p.offset, p.size-1)
	}
	return fmt.Sprintf("bytes=%d-", p.offset)
}

// answer looks whether resp is what was asked for.
func (p part) answer(resp *http.Response) (*body, error) {
	ranges := resp.Header.Get("Content-Range")
	if p.offset > 0 {
		switch resp.StatusCode {
		case http.StatusRequestedRangeNotSatisfiable:
			total, err := strconv.ParseInt(strings.TrimPrefix(ranges, "bytes */"), 10, 64)
			if err == nil && p.size >= 0 && total != p.size {
				return nil, &lengthError{total, p.size}
			}
			return nil, &rangeError{p, resp.Status}
		case http.StatusBadRequest, http.StatusNotImplemented: // some storages' answer to a range
			return nil, &rangeError{p, resp.Status}
		}
	}
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		return nil, err
	}
	b := &body{ReadCloser: resp.Body, total: resp.ContentLength}
	if tag := resp.Header.Get("ETag"); strings.HasPrefix(tag, `"`) {
		b.tag = tag // a weak one does not tell versions of bytes
	}
	if resp.StatusCode == http.StatusOK {
		return b, nil
	}
	var last int64
	b.from = p.offset
	if b.total, last = parseRange(ranges, p.offset); last < 0 || p.offset == 0 ||
		p.size >= 0 && last != p.size-1 || b.total >= 0 && last != b.total-1 {
		return nil, &rangeError{p, fmt.Sprintf("range %q", ranges)}
	}
	return b, nil
}

// parseRange reads a Content-Range that begins at offset. The total is -1 if it is not
// told, last is -1 if it is no such range.
func parseRange(s string, offset int64) (total, last int64) {
	s, ok := strings.CutPrefix(s, fmt.Sprintf("bytes %d-", offset))
	end, whole, slash := strings.Cut(s, "/")
	last, err := strconv.ParseInt(end, 10, 64)
	if !ok || !slash || err != nil || last < offset {
		return -1, -1
	}
	if whole == "*" {
		return -1, last
	}
	if total, err = strconv.ParseInt(whole, 10, 64); err != nil || total <= last {
		return -1, -1
	}
	return total, last
}

func (s source) openFile(p part) (*body, error) {
	f, err := bundle.OpenRegular(s.path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.Seek(p.offset, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &body{ReadCloser: f, from: p.offset, total: info.Size()}, nil
}
