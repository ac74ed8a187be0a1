package images

import (
	"context"
	"fmt"
	"io"
	"time"
)

// leastBytes is what a connection must bring in its idle time. In a minute that is a
// thirteenth of what each of 8 transfers has of a line of 56 kbit/s.
const leastBytes = 4 << 10

// wireBody is a body as its connection brings it. It ends when too little comes for too
// long, and all of them together are read no faster than their pace.
//
// Only the time that is waited for bytes counts. That of the pace, or of a slow disk, does
// not: what comes meanwhile is kept by the kernel.
type wireBody struct {
	io.ReadCloser
	host   string          // for errors
	ctx    context.Context // of the request
	cancel context.CancelCauseFunc
	idle   time.Duration
	pace   *pace // nil for no limit

	came   int           // bytes, of the leastBytes
	waited time.Duration // for these
}

func (b *wireBody) Read(p []byte) (int, error) {
	if b.pace == nil {
		return b.watched(p)
	}
	n, err := b.watched(p[:min(int64(len(p)), b.pace.piece())])
	if n == 0 {
		return n, err
	}
	if wait := b.pace.take(time.Now(), n); wait > 0 {
		if err := sleep(b.ctx, wait); err != nil {
			return n, err
		}
	}
	return n, err
}

func (b *wireBody) watched(p []byte) (int, error) {
	stall := stallError{b.idle}
	start := time.Now()
	t := time.AfterFunc(b.idle-b.waited, func() { b.cancel(stall) })
	n, err := b.ReadCloser.Read(p)
	t.Stop()
	b.came, b.waited = b.came+n, b.waited+time.Since(start)
	if b.came >= leastBytes {
		b.came, b.waited = 0, 0
	}
	if err != nil && err != io.EOF && context.Cause(b.ctx) == error(stall) {
		err = stall
	}
	if err != nil && err != io.EOF {
		err = &hostError{host: b.host, error: err}
	}
	return n, err
}

func (b *wireBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// stallError says that a body brought too little for too long. It is a timeout.
type stallError struct{ after time.Duration }

func (e stallError) Error() string {
	return fmt.Sprintf("the connection stays open, but less than %d bytes came in %s", leastBytes, e.after)
}
func (stallError) Timeout() bool   { return true }
func (stallError) Temporary() bool { return true }
