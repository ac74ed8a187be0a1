package bundle

import (
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

var (
	// ErrStale says that a lock was made from another definition or stack.
	ErrStale = errors.New("lock is stale")
	// ErrIncomplete says that something the lock names is not in the store or bundle.
	ErrIncomplete = errors.New("incomplete")
	// ErrUnauthenticated says that packages would come from an archive whose signature
	// nobody has checked.
	ErrUnauthenticated = errors.New("no key would vouch for what the archive has")
	// ErrUntrusted says that something is not signed with the key that it should be signed with.
	ErrUntrusted = errors.New("is not signed with the key")
)

// A CorruptError names content whose bytes are not what its digest says.
type CorruptError struct {
	Name string  // what the content is: a path, a URL, a member of a tar
	Want v1.Hash // the digest that was asked for
	Got  v1.Hash // the digest of what was read; zero if it was cut short or too long
	Err  error   // why it could not be read to its end, if so
}

func (e *CorruptError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s is corrupt: %v (want %s)", e.Name, e.Err, e.Want)
	}
	return fmt.Sprintf("%s is corrupt: has digest %s, want %s", e.Name, e.Got, e.Want)
}

func (e *CorruptError) Unwrap() error { return e.Err }
