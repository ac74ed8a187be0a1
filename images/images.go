// Package images is the only room that dials out. [Resolve] asks registries, the
// k3s release and the Debian archive what a definition means today and gives the
// lock; [Mirror] fetches what a lock names into the store.
//
// Tags are read by Resolve alone: Mirror takes everything by digest, so that what was
// reviewed is what is built, and only tells if a tag has moved on. Names and errors are
// go-containerregistry's; requests, logins and bodies are not: it has no ranges, ignores
// Retry-After, refuses a token server at a private address and decodes what must stay as
// it is. Whatever is read is bounded, hashed while it streams, and becomes part of the
// store only when its digest is right.
//
// Matchable errors: [IncompleteError], [FetchError], [GoneError], [bundle.CorruptError], [bundle.ErrIncomplete].
package images

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Options are the options of [Resolve] and [Mirror]. Nil is fine.
type Options struct {
	// Mirrors sends the traffic of a registry elsewhere: host to URL, with or
	// without a path that goes before the repository's. Names stay the original.
	Mirrors map[string]string
	// Sources are places on disk to take something from instead of its URL: for
	// "k3s" the folder of a k3s release, for a source of the stack, by its name, a
	// folder, an archive or a file.
	Sources map[string]string
	// AllowModified names sources of the stack that are taken as they are, though
	// they are not what the stack names.
	AllowModified []string
	// PlainHTTP names registries, HOST or HOST:PORT, that do not speak TLS. Those of
	// this machine are known not to, if there are no certificates for them.
	PlainHTTP []string
	// LimitRate bounds all transfers together, in bytes a second. Zero is no bound.
	LimitRate int64
	// Verify computes the digest of all that the store has once more, instead of
	// trusting that a file which did not change since then is still right.
	Verify bool
	// Jobs is the most that one host is asked at once. Default 8.
	Jobs int
	// Keychain gives the credentials of a registry. Default: those of docker and
	// podman, and their credential helpers.
	Keychain authn.Keychain
	// UserAgent is sent along. Default "atoll".
	UserAgent string
	// Reading is told of how many images Resolve or Mirror has read the manifests, or
	// failed to: a few times a second and at the end, never twice at once.
	Reading func(done, total int)
	// Checking is told of how many bytes Mirror knows whether the store has them, in the
	// way of Reading and after it: computing digests may take long.
	Checking func(done, total int64)
	// Progress is told how far Mirror is, a few times a second, never twice at once.
	Progress func(Progress)
	// Log is told what is not an error. Nil discards.
	Log *slog.Logger

	pause time.Duration // the first wait before another try; tests shorten it
	idle  time.Duration // a connection or credential helper that brings nothing for so long is cut
	certs []string      // see certsDirs
}

// Wanted is an image that something asks for.
type Wanted struct {
	Reference string // as written, or canonical
	From      string // the name to fetch it by; empty for its own
	Tier      string // bundle.TierRequired or bundle.TierRuntime
	Where     []string
}

// A GoneError says that a digest of the lock is no longer where it was. A new
// lock pins what is there today.
type GoneError struct {
	Name   string // an image, a file or a package
	Digest v1.Hash
	Host   string // who was asked last
}

func (e *GoneError) Error() string {
	return fmt.Sprintf("%s: %s no longer has %s", e.Name, e.Host, e.Digest)
}

const (
	defaultJobs  = 8
	defaultPause = time.Second
	defaultIdle  = time.Minute
)

// withDefaults gives a copy that has every value set.
func (o *Options) withDefaults() *Options {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Jobs <= 0 {
		out.Jobs = defaultJobs
	}
	if out.UserAgent == "" {
		out.UserAgent = "atoll"
	}
	if out.Reading == nil {
		out.Reading = func(int, int) {}
	}
	if out.Checking == nil {
		out.Checking = func(int64, int64) {}
	}
	if out.Progress == nil {
		out.Progress = func(Progress) {}
	}
	if out.Log == nil {
		out.Log = slog.New(slog.DiscardHandler)
	}
	if out.pause <= 0 {
		out.pause = defaultPause
	}
	if out.idle <= 0 {
		out.idle = defaultIdle
	}
	if out.Keychain == nil {
		out.Keychain = newKeychain(authFiles(), out.idle, out.Log)
	}
	if out.certs == nil {
		out.certs = certsDirs()
	}
	return &out
}
