package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"syscall"
	"time"

	"atoll/bundle"
)

// maxStatus is the longest status line in bytes that is taken from a guest.
const maxStatus = 1 << 20

// lastWords is how long the console is listened to after trouble: what explains it
// often comes after it.
const lastWords = 2 * time.Second

// follow returns nil when the node has said that it is ready and may end, or has ended.
func (m *machine) follow(ctx context.Context, res *Result, o Options) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	statuses, unreadable := make(chan bundle.Status), make(chan error, 1)
	go func() { unreadable <- readStatuses(ctx, m.status, statuses) }()
	var end func() error      // why QEMU is gone, once it is
	var until <-chan struct{} // nil until the node is ready
	var limit <-chan time.Time
	if o.Timeout > 0 {
		limit = time.After(o.Timeout)
	}
	for read := false; !read || end == nil; {
		select {
		case s := <-statuses:
			if res.Start == 0 {
				res.Start = time.Since(m.started)
			}
			if same(s, res.Status) {
				continue
			}
			res.Status = s
			o.OnStatus(s)
			if until != nil { // it was ready, and what it does now is its user's
				continue
			}
			switch s.State {
			case bundle.StateReady:
				res.Duration = time.Since(m.started)
				if err := o.OnReady(res); err != nil {
					return err
				}
				limit, until = nil, o.Until
			case bundle.StateFailed:
				return m.failed(s)
			}
		case <-until:
			return nil
		case err := <-unreadable:
			read = true
			if err != nil {
				return &GuestError{Reason: "status of the guest is unreadable: " + err.Error(), Log: m.console.tail(), Err: err}
			}
		case why := <-m.console.found:
			m.listen(ctx)
			return &GuestError{Reason: why + "; the console's end:", Log: m.console.tail()}
		case e := <-m.qmp.events:
			if err := diskError(e); err != nil {
				return err
			}
		case err := <-m.exited:
			// What it said before may still be unread.
			m.exited, end = nil, func() error {
				if until != nil {
					return m.endedReady(err)
				}
				return m.ended(err, res.Status)
			}
		case <-limit:
			return m.interrupted(context.DeadlineExceeded, res.Status)
		case <-ctx.Done():
			return m.interrupted(ctx.Err(), res.Status)
		}
	}
	if ctx.Err() != nil { // which is what ended it
		return m.interrupted(ctx.Err(), res.Status)
	}
	select {
	case why := <-m.console.found:
		return &GuestError{Reason: why + "; the console's end:", Log: m.console.tail()}
	default:
		return end()
	}
}

// readStatuses sends the statuses that a guest writes, one JSON object a line. A line
// that is no status is skipped: a writer that was killed leaves half of one.
func readStatuses(ctx context.Context, r io.Reader, to chan<- bundle.Status) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxStatus)
	for lines.Scan() {
		var s bundle.Status
		if json.Unmarshal(lines.Bytes(), &s) != nil || s.State == "" {
			continue
		}
		select {
		case to <- cleanStatus(s):
		case <-ctx.Done():
			return nil
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("line is longer than %d bytes", maxStatus)
	}
	return nil // QEMU has ended, and its end says why
}

// same says whether two statuses tell the same; the node repeats itself.
func same(a, b bundle.Status) bool {
	a.Updated, b.Updated = time.Time{}, time.Time{}
	return reflect.DeepEqual(a, b)
}

// listen waits for the guest's last words.
func (m *machine) listen(ctx context.Context) {
	select {
	case <-time.After(lastWords):
	case <-ctx.Done():
	}
}

func (m *machine) failed(s bundle.Status) error {
	reason := s.Error
	if reason == "" {
		reason = "node failed and gave no reason"
	}
	if p := current(s); p != "" {
		reason = p + ": " + reason
	}
	if len(s.Log) == 0 {
		s.Log = m.console.tail()
	}
	return &GuestError{Reason: reason, Log: s.Log}
}

func (m *machine) ended(err error, s bundle.Status) error {
	if err != nil {
		return &GuestError{Reason: fmt.Sprintf("QEMU ended with %v", err), Log: append(m.stderr.tail(), m.console.tail()...), Err: err}
	}
	return &GuestError{Reason: "guest powered off or restarted before the stack was ready; " + where(s), Log: m.console.tail()}
}

// endedReady is the end of a QEMU whose guest was ready.
func (m *machine) endedReady(err error) error {
	if err != nil {
		return &GuestError{Reason: fmt.Sprintf("QEMU ended badly after the stack was ready: %v", err), Log: m.stderr.tail(), Err: err}
	}
	return nil
}

func (m *machine) interrupted(err error, s bundle.Status) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &GuestError{
		Reason: fmt.Sprintf("stack was not ready in %v; %s", time.Since(m.started).Round(time.Second), where(s)),
		Log:    m.console.tail(), Err: err,
	}
}

// diskError tells of a disk of the host that cannot take what the guest writes. QEMU
// stops the guest then, so nothing else would ever tell.
func diskError(e event) error {
	if e.Name != "BLOCK_IO_ERROR" {
		return nil
	}
	if e.Data.NoSpace {
		return &GuestError{Reason: "disk of the host is full: the guest's overlay cannot grow", Err: syscall.ENOSPC}
	}
	return &GuestError{Reason: "reading or writing the guest's disk failed: " + clean(e.Data.Reason), Err: syscall.EIO}
}

// where says in words how far a node was.
func where(s bundle.Status) string {
	if s.State == "" {
		return "the node told no status; the console's end:"
	}
	if p := current(s); p != "" {
		return "it was at " + p + "; the console's end:"
	}
	return "it was " + s.State + "; the console's end:"
}

// current is the phase that is not done: the failed one, or the running one, and what
// it waits for.
func current(s bundle.Status) string {
	for _, state := range []string{bundle.StateFailed, bundle.StateRunning} {
		for _, p := range s.Phases {
			if p.State != state {
				continue
			}
			if p.Message != "" {
				return fmt.Sprintf("phase %s (%s)", p.Name, p.Message)
			}
			return "phase " + p.Name
		}
	}
	return ""
}
