package firstboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lookEvery = 250 * time.Millisecond // how often the status file is looked at
	beatEvery = 5 * time.Second        // how often it is sent again unchanged
)

// Publish sends the status file over the virtio port: at every change, and now and
// then again, so that who starts to listen late is told too. It ends with ctx, after
// a last look. The port may come late, be another's for a while (it takes one writer),
// or never be there, as on a real machine: it is looked for again and again. The error
// is why the last line was not sent; that there is no port is none.
func Publish(ctx context.Context, statusPath, portPath string) error {
	fd := -1
	defer func() { closePort(fd) }()
	var last []byte
	var sent time.Time
	var failed error
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-time.After(lookEvery):
		}
		line, err := statusLine(statusPath)
		if err != nil || bytes.Equal(line, last) && time.Since(sent) < beatEvery {
			continue
		}
		if fd < 0 {
			// Nobody may listen at the other end: never block on it.
			if fd, failed = unix.Open(portPath, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); failed != nil {
				continue
			}
		}
		if failed = sendLine(fd, line); failed != nil {
			closePort(fd)
			fd = -1
			continue
		}
		last, sent = line, time.Now()
	}
	if failed != nil && !errors.Is(failed, unix.ENOENT) {
		return fmt.Errorf("writing to %s: %w", portPath, failed)
	}
	return nil
}

func closePort(fd int) {
	if fd >= 0 {
		unix.Close(fd) // there is nothing to be done about an error
	}
}

// sendLine writes a line whole. One that nobody reads is given up after a second if
// nothing of it went out; one that was begun must be ended for the next to make sense.
func sendLine(fd int, line []byte) error {
	rest := line
	for start := time.Now(); len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		switch {
		case err == nil:
			rest = rest[n:]
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			waited := time.Since(start)
			if waited > time.Second && len(rest) == len(line) || waited > time.Minute {
				return nil
			}
			time.Sleep(20 * time.Millisecond)
		default:
			return err
		}
	}
	return nil
}
