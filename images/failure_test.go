package images

import (
	"errors"
	"io"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
)

// Of a connection that brings nothing it is told what that may mean, and what to do.
func TestSaidOfConnections(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{io.EOF, "breaks connections off again and again: "},
		{io.ErrUnexpectedEOF, "breaks connections off again and again: "},
		{os.NewSyscallError("read", syscall.ECONNRESET), "breaks connections off again and again: "},
		{os.ErrDeadlineExceeded, "keeps connections and sends nothing: "},
		{errors.New("nonsense"), ""},
	} {
		err := explain(&url.Error{Op: "Get", URL: "https://h/v2/a/1", Err: tc.err}, "image a", "h")
		said := (&FetchError{Names: []string{"image a"}, Host: "h", Err: err}).Said()
		advised := strings.Contains(said, "run the same command again later: ")
		if !strings.HasPrefix(said, tc.want) || !strings.HasSuffix(said, tc.err.Error()) || advised != (tc.want != "") {
			t.Errorf("of %v it says %q, want %q and what to do", tc.err, said, tc.want)
		}
	}
}
