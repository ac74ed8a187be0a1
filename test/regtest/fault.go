package regtest

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Answer is what is about to be sent.
type Answer struct {
	Status int
	// Header may hold a Content-Length that is a lie. If it has none the true one is sent.
	Header http.Header
	Body   []byte
	// Chunked leaves the Content-Length out.
	Chunked bool
	// CutAt and StallAt are after how many bytes of the body the connection is broken, or
	// nothing more comes: Never, BeforeHead, or a number.
	CutAt, StallAt int
	// Reset breaks connections the hard way.
	Reset bool
	// Piece bytes are sent at a time, and then Pause is waited. Without Pause all is sent at once.
	Piece int
	Pause time.Duration

	whole []byte // the blob that Body is of
}

// Places to break an answer at, besides a number of bytes.
const (
	Never      = -1
	BeforeHead = -2
)

func (a *Answer) content(mediaType string, body []byte) {
	a.Header.Set("Content-Type", mediaType)
	a.Body = body
}

// refuse makes the answer an error as registries write it; without a code it has no body.
func (a *Answer) refuse(status int, code string) {
	*a = Answer{Status: status, Header: http.Header{}, CutAt: Never, StallAt: Never}
	if code != "" {
		a.content("application/json", fmt.Appendf(nil, `{"errors":[{"code":%q,"message":"as the test wants it"}]}`, code))
	}
}

var closedOrOpen = regexp.MustCompile(`^bytes=(\d{1,15})-(\d{0,15})$`)

// blob answers with what of body is asked for.
func (a *Answer) blob(body []byte, asked string) {
	a.content("application/octet-stream", body)
	a.whole = body
	m := closedOrOpen.FindStringSubmatch(asked)
	if m == nil {
		return
	}
	from, _ := strconv.Atoi(m[1]) // both are digits
	to := len(body) - 1
	if last, err := strconv.Atoi(m[2]); err == nil {
		to = min(to, last)
	}
	if from > to {
		a.Status, a.Body = http.StatusRequestedRangeNotSatisfiable, nil
		a.Header.Set("Content-Range", fmt.Sprintf("bytes */%d", len(body)))
		return
	}
	a.Status, a.Body = http.StatusPartialContent, body[from:to+1]
	a.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(body)))
}

// A Fault changes the right answer to a request. Faults of one registry are never run at
// the same time, so they may have a memory.
type Fault func(q Request, a *Answer)

// Break puts a fault into effect in place of the one before; nil heals the registry.
func (r *Registry) Break(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

// On limits a fault to requests of some kinds.
func On(f Fault, kinds ...Kind) Fault {
	return func(q Request, a *Answer) {
		if slices.Contains(kinds, q.Kind) {
			f(q, a)
		}
	}
}

// Of limits a fault to one manifest or blob, by its digest or tag.
func Of(f Fault, names ...string) Fault {
	return func(q Request, a *Answer) {
		if slices.Contains(names, q.Name) {
			f(q, a)
		}
	}
}

// First limits a fault to the first n requests for each path.
func First(n int, f Fault) Fault {
	return func(q Request, a *Answer) {
		if q.N < n {
			f(q, a)
		}
	}
}

// All is several faults, one after the other.
func All(faults ...Fault) Fault {
	return func(q Request, a *Answer) {
		for _, f := range faults {
			f(q, a)
		}
	}
}

// Cut breaks the connection after a part of the body, from 0 to 1.
func Cut(part float64) Fault {
	return func(_ Request, a *Answer) { a.CutAt = int(part * float64(len(a.Body))) }
}

// Reset does so the hard way.
func Reset(part float64) Fault {
	return All(Cut(part), func(_ Request, a *Answer) { a.Reset = true })
}

// Drop breaks the connection instead of answering.
func Drop(_ Request, a *Answer) { a.CutAt, a.Reset = BeforeHead, true }

// Stall sends nothing after a part of the body, from 0 to 1, and keeps the connection.
func Stall(part float64) Fault {
	return func(_ Request, a *Answer) { a.StallAt = int(part * float64(len(a.Body))) }
}

// Silence keeps the connection and never answers.
func Silence(_ Request, a *Answer) { a.StallAt = BeforeHead }

// Slow sends pieces of so many bytes, each after a pause.
func Slow(piece int, pause time.Duration) Fault {
	return func(_ Request, a *Answer) { a.Piece, a.Pause = piece, pause }
}

// Trickle sends a byte now and then: never silent, and never done.
var Trickle = Slow(1, 50*time.Millisecond)

// Flip changes a bit in the middle.
func Flip(_ Request, a *Answer) {
	if len(a.Body) > 0 {
		a.Body = bytes.Clone(a.Body)
		a.Body[len(a.Body)/2] ^= 1
	}
}

// Refuse answers with a status and what registries say in an error; header is pairs.
func Refuse(status int, header ...string) Fault {
	return func(_ Request, a *Answer) {
		a.refuse(status, "DENIED")
		for i := 0; i+1 < len(header); i += 2 {
			a.Header.Set(header[i], header[i+1])
		}
	}
}

// Plain puts text in the place of the body; none if it is empty.
func Plain(text string) Fault {
	return func(_ Request, a *Answer) { a.content("text/plain", []byte(text)) }
}

// Page is what a portal answers that wants a login of its own: a page, and that all is well.
func Page(_ Request, a *Answer) {
	a.refuse(http.StatusOK, "")
	a.content("text/html", []byte("<html><body>Please accept our terms of use</body></html>"))
}

// Empty says that all is well, and nothing more.
func Empty(_ Request, a *Answer) {
	a.refuse(http.StatusOK, "")
}

// Longer adds a byte that does not belong there.
func Longer(_ Request, a *Answer) { a.Body = append(bytes.Clone(a.Body), 'x') }

// Length lies about the length, by so many bytes.
func Length(by int) Fault {
	return func(_ Request, a *Answer) { a.Header.Set("Content-Length", strconv.Itoa(max(0, len(a.Body)+by))) }
}

// Digest lies about the digest.
func Digest(_ Request, a *Answer) {
	a.Header.Set("Docker-Content-Digest", v1.Hash{Algorithm: "sha256", Hex: digest([]byte("a lie")).Hex}.String())
}

// Chunked leaves the length out.
func Chunked(_ Request, a *Answer) { a.Chunked = true }

// NoRange gives the whole to those who ask for a part.
func NoRange(_ Request, a *Answer) {
	if a.whole != nil {
		a.Status, a.Body = http.StatusOK, a.whole
		a.Header.Del("Content-Range")
	}
}

// WrongRange gives those who ask for a part another one, and says so.
func WrongRange(_ Request, a *Answer) {
	if a.Status == http.StatusPartialContent {
		a.Body = a.whole[:len(a.Body)]
		a.Header.Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(a.Body)-1, len(a.whole)))
	}
}

// FalseRange gives those who ask for a part another one, and does not say so.
func FalseRange(_ Request, a *Answer) {
	if a.Status == http.StatusPartialContent {
		a.Body = a.whole[:len(a.Body)]
	}
}

// Around sends everyone to the same place again, for ever.
func Around(q Request, a *Answer) {
	a.refuse(http.StatusTemporaryRedirect, "")
	a.Header.Set("Location", "http://"+q.Host+q.Path+"?"+q.Query)
}
