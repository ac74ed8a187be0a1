package images

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	// bodyTries is how often a body is asked for before it is called corrupt.
	bodyTries = 3
	// smallTries is how often a small body is asked for that is cut short or corrupt.
	smallTries = 5
)

// getSmall gets a body of at most limit bytes whole, once.
func getSmall(hc *http.Client, req *http.Request, limit int64) ([]byte, error) {
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
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
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

// brokeMidway tells a body that broke on its way from what never came: that was tried
// for as often as it may help, by [patience].
func brokeMidway(err error) bool {
	var asked *url.Error
	return isReset(err) && !errors.As(err, &asked)
}

// small gets a body without a login, and again if it breaks on the way.
func (d *door) small(req *http.Request, limit int64) (data []byte, err error) {
	for range smallTries {
		if data, err = getSmall(d.http, req, limit); err == nil || req.Context().Err() != nil || !brokeMidway(err) {
			break
		}
		var again error
		if req, again = rewind(req); again != nil {
			return nil, again
		}
	}
	return data, err
}

// hideQuery takes the queries out of the URLs that an error tells: those of a storage hold
// a signature, which is as good as a password.
func hideQuery(err error) {
	for asked := (*url.Error)(nil); errors.As(err, &asked); err = asked.Err {
		if path, _, found := strings.Cut(asked.URL, "?"); found {
			asked.URL = path
		}
		// These repeat, as text, where a registry sends us on to.
		switch text := asked.Err.Error(); {
		case strings.HasPrefix(text, "failed to parse Location header"):
			asked.Err = errors.New("it sends on to what is no URL")
		case strings.Contains(text, "malformed MIME header"):
			asked.Err = errors.New("the header of its answer is malformed")
		}
	}
}
