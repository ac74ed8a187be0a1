package regtest

import (
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Kind is what a request asks for.
type Kind string

// Kinds of requests.
const (
	Ping     Kind = "ping"     // whether there is a registry
	Manifest Kind = "manifest" // or an index
	Blob     Kind = "blob"     // or a config
	Token    Kind = "token"
	Storage  Kind = "storage" // a blob, where the registry sent to
	Other    Kind = "other"
)

// A Request is one that was made, and what was done about it.
type Request struct {
	Kind         Kind
	Method, Host string
	Path, Query  string
	Repository   string
	Name         string // a tag or a digest
	Range        string
	// Authorization is the header as it came.
	Authorization string
	At            time.Time
	// N is how often the method and path were asked for before.
	N int
	// From is the first byte that is asked for.
	From int64

	// Status, Sent and what follows are known when the answer has begun.
	Status int
	// Sent is how many bytes of the body were sent.
	Sent int64
	// Broken says that the connection ended before the answer did, whoever broke it.
	Broken bool
	// Spoiled says that a body of success was not what was asked for.
	Spoiled bool
}

// Requests are all requests since the start or [Registry.Forget], in the order they came.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Request, len(r.requests))
	for i, q := range r.requests {
		out[i] = *q
	}
	return out
}

// Forget starts the counts anew.
func (r *Registry) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
	clear(r.asked)
}

// Count is how many requests were of these kinds; of all if none is named.
func (r *Registry) Count(kinds ...Kind) int {
	n := 0
	for _, q := range r.Requests() {
		if len(kinds) == 0 || slices.Contains(kinds, q.Kind) {
			n++
		}
	}
	return n
}

// Sent is how many bytes were sent of a manifest or blob that is asked for by digest, from
// registry and storage together, refusals left out.
func (r *Registry) Sent(h v1.Hash) int64 {
	var n int64
	for _, q := range r.Requests() {
		if q.Name == h.String() && q.Status/100 == 2 {
			n += q.Sent
		}
	}
	return n
}
