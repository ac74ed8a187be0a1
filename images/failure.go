package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

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
	Host  string   // who was asked; empty if nobody was
	Err   error

	others []*FetchError // of others who were asked for the same
}

func (e *FetchError) Error() string {
	told := []string{e.Err.Error()}
	for _, other := range e.others {
		if text := other.Err.Error(); !slices.Contains(told, text) {
			told = append(told, text)
		}
	}
	return strings.Join(told, "; ")
}

func (e *FetchError) Unwrap() error { return e.Err }

// Said is what the host said, without what names the content, so that it is the same for
// all that one cause keeps away. It goes on with what others said who were asked too.
func (e *FetchError) Said() string {
	told := []string{e.Host + " " + e.said()}
	for _, other := range e.others {
		if said := other.Host + " " + other.said(); !slices.Contains(told, said) {
			told = append(told, said)
		}
	}
	return strings.TrimPrefix(strings.Join(told, "; "), e.Host+" ")
}

func (e *FetchError) said() string {
	var gone *GoneError
	var corrupt *bundle.CorruptError
	var length *lengthError
	switch {
	case errors.As(e.Err, &gone) && gone.Host != e.Host && gone.Host != "":
		return fmt.Sprintf("sends to its storage %s, which no longer has it", gone.Host)
	case errors.As(e.Err, &gone):
		return "no longer has it"
	case errors.As(e.Err, &length):
		return "has it in another size than is stated for it: " + length.Error()
	case errors.As(e.Err, &corrupt) && corrupt.Err != nil:
		return "sends it corrupt: " + reason(corrupt.Err)
	case errors.As(e.Err, &corrupt):
		return "sends it corrupt"
	}
	err := e.Err
	var told *explainedError
	if errors.As(err, &told) {
		err = told.err
	}
	if v := verdict(err, e.Host); v != "" {
		return v + ": " + reason(err)
	}
	return reason(err)
}

// explainedError tells what failed, where, and what the user can do.
type explainedError struct {
	what, host string
	err        error // the cause, which names neither
}

func explain(err error, what, host string) error {
	hideQuery(err)
	return &explainedError{what, host, err}
}

func (e *explainedError) Error() string {
	said := OneLine(e.err.Error())
	if v := verdict(e.err, e.host); v != "" {
		return fmt.Sprintf("%s: %s %s: %s", e.what, e.host, v, said)
	}
	return fmt.Sprintf("%s at %s: %s", e.what, e.host, said)
}

// toldHost is the host that an error tells of; empty if none.
func toldHost(err error) string {
	var told *explainedError
	var gone *GoneError
	switch {
	case errors.As(err, &told):
		return told.host
	case errors.As(err, &gone):
		return gone.Host
	}
	return ""
}

// MaxLine bounds what [OneLine] gives, in bytes.
const MaxLine = 600

// OneLine makes one line of what a host may have said, and nothing that a terminal obeys:
// who wants a login of his own answers with whole pages.
func OneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(s))
	if len(s) > MaxLine {
		return strings.ToValidUTF8(s[:MaxLine], "") + "…"
	}
	return s
}

func (e *explainedError) Unwrap() error { return e.err }

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
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Source != nil {
		return op.Op + ": " + op.Err.Error() // without our port, which is another each time
	}
	return err.Error()
}

// verdict is what can be said of a host after an error, and what the user can do; empty if
// nothing. What is the fault of another host, where it sent us to, is said of that one.
func verdict(err error, host string) string {
	role, who := blamed(err, host)
	if role == "" {
		return advice(err, host, host, role)
	}
	return fmt.Sprintf("sends to its %s %s, which %s", role, who, cmp.Or(advice(err, who, host, role), "fails"))
}

// blamed finds the host that an error is from, and what it is to the host that was asked:
// its storage or its token server, or nothing if it is the same.
func blamed(err error, host string) (role, who string) {
	var refused *transport.Error
	var failed *hostError
	var redirect redirectError
	switch {
	case errors.As(err, &redirect):
	case errors.As(err, &refused):
		if refused.Request != nil {
			who = refused.Request.URL.Host
		}
	case errors.As(err, &failed):
		who = failed.host
	default:
		who = lastAsked(err)
	}
	var login *tokenError
	switch {
	case who == "" || hostName(who) == hostName(host):
		return "", host
	case errors.As(err, &login):
		return "token server", who
	}
	return "storage", who
}

// lastAsked is the host of the innermost URL of an error; empty if there is none.
func lastAsked(err error) (host string) {
	for asked := (*url.Error)(nil); errors.As(err, &asked); err = asked.Err {
		if u, err := url.Parse(asked.URL); err == nil {
			host = u.Host
		}
	}
	return host
}

// denied is what a refusal means that a host answers with.
func denied(refused *transport.Error, registry, role string) string {
	own := refused.Request != nil && refused.Request.Context().Value(showsOwn{}) != nil
	switch {
	case role == "storage":
		return "denies access, though the registry sent us there: check the clocks of both and the registry's settings of its storage, or what filters between"
	case own && refused.StatusCode == http.StatusUnauthorized:
		return fmt.Sprintf("refuses the credentials that it was sent: log in anew with \"docker login %s\"", registry)
	case own:
		return fmt.Sprintf("denies access with the credentials that it was sent: check the name, and whether they may read it, or log in with others by \"docker login %s\"", registry)
	}
	return fmt.Sprintf("denies access: check the name, or log in with \"docker login %s\"", registry)
}

// advice is what an error of a host means, and what the user can do; empty if unknown. Its
// role is what it is to the registry.
func advice(err error, host, registry, role string) string {
	var refused *transport.Error
	if errors.As(err, &refused) {
		switch refused.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return denied(refused, registry, role)
		case http.StatusNotFound:
			if role != "" {
				return "does not have what was asked for: check the registry's settings"
			}
			return "does not have it: check the name and tag"
		case http.StatusTooManyRequests:
			return "answers no more requests for now: log in for a larger allowance, or run the same command again later"
		}
	}
	if a := connectionAdvice(err, host, role); a != "" {
		return a
	}
	switch {
	case isBroken(err):
		return "breaks connections off again and again: check the network between, or run the same command again later"
	case isReset(err):
		return "keeps connections and sends nothing: check the network between, or run the same command again later"
	}
	return ""
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
