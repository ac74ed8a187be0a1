package qemu

import "strings"

// A GuestError says that the guest did not get ready, and why.
type GuestError struct {
	Reason string
	// Log is the tail of the log that tells more: the node's own, or the console's.
	Log []string
	// Err is the cause, if there is one to match: like that of the context, or ENOSPC.
	Err error
}

func (e *GuestError) Error() string {
	if len(e.Log) == 0 {
		return e.Reason
	}
	return e.Reason + "\n  " + strings.Join(e.Log, "\n  ")
}

func (e *GuestError) Unwrap() error { return e.Err }
