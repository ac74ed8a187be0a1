package images

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"atoll/bundle"
)

// An IncompleteError says that not all that a lock names could be fetched. It is
// [bundle.ErrIncomplete], and all that its causes are.
type IncompleteError struct {
	Left int64 // bytes that have not come, as far as their sizes are known; -1 if none is
	Err  error // the causes, joined: see [Failures]
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("%v\nmirror is %v: what could be fetched is kept", e.Err, bundle.ErrIncomplete)
}

func (e *IncompleteError) Unwrap() []error { return []error{e.Err, bundle.ErrIncomplete} }

// A FetchError says who lacks what did not come, and of whom it was asked for. Its text
// is that of Err.
type FetchError struct {
	Names []string // the images, or the file, package or source, that lack it; none if unknown
	Host  string   // who was asked last; empty if nobody was
	Err   error
}

func (e *FetchError) Error() string { return e.Err.Error() }
func (e *FetchError) Unwrap() error { return e.Err }

// Said is what the host said, without what names the content, so that it is the same for
// all that one cause keeps away.
func (e *FetchError) Said() string {
	var gone *GoneError
	var corrupt *bundle.CorruptError
	switch {
	case errors.As(e.Err, &gone):
		return "no longer has it"
	case errors.As(e.Err, &corrupt) && corrupt.Err != nil:
		return "sends it corrupt: " + reason(corrupt.Err)
	case errors.As(e.Err, &corrupt):
		return "sends it corrupt"
	}
	if a := advice(e.Err, e.Host); a != "" {
		return a + ": " + reason(e.Err)
	}
	return reason(e.Err)
}

// reason is an error's text, without the URL that was asked for.
func reason(err error) string {
	var refused *transport.Error
	if errors.As(err, &refused) {
		said := fmt.Sprintf("%d %s", refused.StatusCode, http.StatusText(refused.StatusCode))
		for _, d := range refused.Errors {
			said += ": " + string(d.Code)
			if d.Message != "" {
				said += ": " + d.Message
			}
		}
		return said
	}
	for asked := (*url.Error)(nil); errors.As(err, &asked); {
		err = asked.Err // a login may be below a request
	}
	return err.Error()
}

// advice is what an error of a host means, and what the user can do; empty if unknown.
func advice(err error, host string) string {
	var refused *transport.Error
	if errors.As(err, &refused) {
		switch refused.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Sprintf("denies access: check the name, or log in with \"docker login %s\"", host)
		case http.StatusNotFound:
			return "does not have it: check the name and tag"
		case http.StatusTooManyRequests:
			return "answers no more requests for now: log in for a larger allowance, or run the same command again later"
		}
	}
	return connectionAdvice(err, host)
}

// Failures takes the error of [Mirror] or [MirrorSources] apart, in its order.
func Failures(err error) []*FetchError {
	if err == nil {
		return nil
	}
	var incomplete *IncompleteError
	if errors.As(err, &incomplete) {
		return Failures(incomplete.Err)
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*FetchError
		for _, part := range joined.Unwrap() {
			all = append(all, Failures(part)...)
		}
		return all
	}
	var failed *FetchError
	var gone *GoneError
	switch {
	case errors.As(err, &failed):
		return []*FetchError{failed}
	case errors.As(err, &gone):
		return []*FetchError{{Names: []string{gone.Name}, Host: gone.Host, Err: err}}
	}
	return []*FetchError{{Err: err}}
}

// incomplete says that err kept something of the lock away, and how much.
func (m *mirror) incomplete(ctx context.Context, err error, l *bundle.Lock, t *tally) error {
	unasked, lookErr := m.unasked(ctx, l)
	return &IncompleteError{Left: t.left() + unasked, Err: errors.Join(err, lookErr)}
}

// unasked adds up what was not asked for: layers of images whose manifest did not come,
// packages that no archive was found for.
func (m *mirror) unasked(ctx context.Context, l *bundle.Lock) (left int64, err error) {
	seen := map[v1.Hash]bool{}
	add := func(h v1.Hash, stored, size int64) {
		if err != nil || seen[h] || m.downloads[h] != nil {
			return
		}
		seen[h] = true
		var have bool
		if have, err = m.store.Has(ctx, h, stored); err == nil && !have {
			left += size
		}
	}
	for _, im := range l.Images {
		add(im.Manifest, -1, im.Size)
	}
	for _, p := range l.Packages {
		add(p.Digest, p.Size, p.Size)
	}
	return left, err
}
