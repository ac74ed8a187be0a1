package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"net/http"
	"net/url"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	// maxStuck is how often a stream is opened again without getting on.
	maxStuck = 5
	// gettingOn is what counts as such, in bytes: a server that sends a byte and
	// hangs up is not worth a thousand tries.
	gettingOn = 256 << 10
)

var (
	// errStartOver tells who reads a stream that the next bytes are its first again.
	errStartOver = errors.New("starting over")
	errChanged   = errors.New("the content changed while it was read")
)

// stream reads a source to its end. A connection that breaks, or brings too little for
// too long, is opened again where it stopped.
type stream struct {
	ctx  context.Context
	src  source
	size int64 // -1 if not known
	c    *client

	// checked says that who reads checks a digest, and takes errStartOver. For all
	// others what comes twice is compared, and is an error if it is not the same.
	checked bool
	sum     hash.Hash // of what was read
	tag     string    // of the version that is read

	body   *body
	offset int64
	high   int64 // the highest offset when the body was opened
	opens  int
	whole  bool // parts are not to be had
	stuck  int
	err    error // the end of it, if that is an error
}

// stream reads src; size is its length, or -1.
func (c *client) stream(ctx context.Context, src source, size int64) *stream {
	return &stream{ctx: ctx, src: src, size: size, c: c, sum: sha256.New()}
}

// checkedStream reads src, whose length is size, from offset on. It gives
// [errStartOver] when it cannot go on there.
func (c *client) checkedStream(ctx context.Context, src source, offset, size int64) *stream {
	return &stream{ctx: ctx, src: src, size: size, c: c, checked: true, offset: offset, high: offset}
}

func (s *stream) Read(p []byte) (int, error) {
	for {
		switch {
		case len(p) == 0:
			return 0, nil
		case s.err != nil:
			return 0, s.err
		case s.size >= 0 && s.offset >= s.size:
			return 0, io.EOF
		case s.body == nil:
			err := s.open()
			if err == errStartOver {
				return 0, err
			}
			if err != nil {
				s.broke(err, true)
				continue
			}
		}
		if s.size >= 0 {
			p = p[:min(int64(len(p)), s.size-s.offset)]
		}
		n, err := s.body.Read(p)
		s.offset += int64(n)
		if s.sum != nil {
			s.sum.Write(p[:n])
		}
		switch {
		case s.size >= 0 && s.offset >= s.size:
			if err == nil && s.body.total < 0 && s.more() {
				s.err = &lengthError{s.size + 1, s.size}
				return n, s.err
			}
			return n, io.EOF
		case err == io.EOF && s.size < 0:
			return n, io.EOF
		case err == io.EOF:
			s.broke(io.ErrUnexpectedEOF, false)
		case err != nil:
			s.broke(err, false)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// more tells whether the body goes on behind its last byte.
func (s *stream) more() bool {
	n, _ := s.body.Read(make([]byte, 1))
	return n > 0
}

// open goes on at the offset.
func (s *stream) open() error {
	want := part{offset: s.offset, size: s.size, tag: s.tag}
	if s.whole || !s.checked && s.tag == "" { // a part may be another version's, and nobody would see
		want.offset = 0
	}
	var err error
	if s.body, err = s.src.open(s.ctx, want); err != nil {
		s.body = nil
		return err
	}
	s.opens++
	if s.size < 0 {
		s.size = s.body.total // then a cut is seen
	}
	if s.body.total >= 0 && s.body.total != s.size {
		return &lengthError{s.body.total, s.size}
	}
	switch {
	case s.body.from > 0 && !s.checked && s.body.tag != s.tag:
		return &rangeError{want, "a part of another version, or of none that it names"}
	case s.body.from == s.offset:
	case s.checked:
		s.offset = 0
		return errStartOver
	default:
		if err := s.skip(); err != nil {
			return err
		}
	}
	if s.tag == "" && !s.checked {
		s.tag = s.body.tag
	}
	return nil
}

// skip reads what was read before, and looks whether it is the same.
func (s *stream) skip() error {
	again := sha256.New()
	buf := make([]byte, 64<<10)
	for left := s.offset; left > 0; {
		n, err := s.body.Read(buf[:min(int64(len(buf)), left)])
		again.Write(buf[:n])
		if left -= int64(n); err == io.EOF && left > 0 {
			return io.ErrUnexpectedEOF
		} else if err != nil && left > 0 {
			return err
		}
	}
	if !bytes.Equal(again.Sum(nil), s.sum.Sum(nil)) {
		return errChanged
	}
	return nil
}

// broke decides whether to go on after an error: of opening, or of reading what was opened.
func (s *stream) broke(err error, opening bool) {
	s.Close()
	var refused *transport.Error
	var length *lengthError
	var ranged *rangeError
	var asked *url.Error // what it tells was tried as often as it may help, by [patience]
	final := opening && (s.opens == 0 && !transient(err) || errors.As(err, &asked))
	switch {
	case errors.As(err, &refused):
		final = !s.expired(err, refused)
	case errors.As(err, &ranged):
		final = s.whole
	case errors.As(err, &length), err == errChanged, s.src.path != "":
		final = true
	}
	if final {
		s.err = err
		return
	}
	if s.offset-s.high >= gettingOn {
		s.stuck = 0
	}
	s.high = max(s.high, s.offset)
	s.stuck++
	if refused != nil || isTimeout(err) {
		s.stuck++ // these take long, or seldom mend
	}
	switch {
	case s.ctx.Err() != nil:
		s.err = context.Cause(s.ctx)
	case s.stuck > maxStuck:
		s.err = err
	case ranged != nil:
		s.c.Log.Debug("server gives no part, asking for the whole", "host", s.src.host, "error", err)
		s.whole = true
	default:
		s.c.Log.Debug("connection broke", "host", s.src.host, "at", s.offset, "error", err)
		if err := sleep(s.ctx, s.c.pause<<(s.stuck-1)); err != nil {
			s.err = err
		}
	}
}

// expired tells whether the one who refused is a storage that the source sent us to, by
// a URL that is good for a while only. The source gives a new one.
func (s *stream) expired(err error, refused *transport.Error) bool {
	var login *tokenError
	return !errors.As(err, &login) && refused.StatusCode == http.StatusForbidden && refused.Request != nil && refused.Request.URL.String() != s.src.url
}

// Close may be called more than once.
func (s *stream) Close() error {
	if s.body == nil {
		return nil
	}
	err := s.body.Close()
	s.body = nil
	return err
}

// transient tells errors of a moment from those that stay, like an unknown host.
func transient(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || isReset(err)
}
