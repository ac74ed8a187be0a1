package images

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	// bodyTries is how often a body is asked for before it is called corrupt.
	bodyTries = 3
	// smallTries is how often a small body is asked for that is cut short or corrupt.
	smallTries = 5
	// smallIdles is how many times the idle time a small body may take in all: one that
	// drips would keep us for days.
	smallIdles = 10
)

// getSmall gets a body of at most limit bytes whole, once.
func getSmall(hc *http.Client, req *http.Request, limit int64, idle time.Duration) ([]byte, error) {
	resp, err := hc.Do(req)
	if err != nil {
		hideQuery(err)
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode/100 == 2 {
		return nil, fmt.Errorf("answer to %s %s is %q, not the whole of it", req.Method, req.URL.Path, resp.Status)
	}
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return nil, err
	}
	body := io.Reader(&hurried{r: io.LimitReader(resp.Body, limit+1), until: time.Now().Add(smallIdles * idle)})
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", req.URL.Path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", req.URL.Path, limit)
	}
	if resp.ContentLength >= 0 && int64(len(data)) != resp.ContentLength {
		return nil, fmt.Errorf("reading %s: %w", req.URL.Path, io.ErrUnexpectedEOF)
	}
	return data, nil
}

// small gets a body without a login, and again if it is cut short.
func (d *door) small(req *http.Request, limit int64) (data []byte, err error) {
	for range smallTries {
		if data, err = getSmall(d.http, req, limit, d.idle); err == nil || req.Context().Err() != nil || !isReset(err) {
			break
		}
		var again error
		if req, again = rewind(req); again != nil {
			return nil, again
		}
	}
	return data, err
}

// hurried is a reader that must be done by a time.
type hurried struct {
	r     io.Reader
	until time.Time
}

func (h *hurried) Read(p []byte) (int, error) {
	if time.Now().After(h.until) {
		return 0, errors.New("it comes too slowly")
	}
	return h.r.Read(p)
}

// hideQuery takes the queries out of the URL that an error tells: those of a storage hold
// a signature, which is as good as a password.
func hideQuery(err error) {
	var asked *url.Error
	if errors.As(err, &asked) {
		if path, _, found := strings.Cut(asked.URL, "?"); found {
			asked.URL = path
		}
	}
}
