package manifest

import (
	"errors"
	"net/http"
	"os"
	"sync"
)

// guard keeps kustomize from commands and from the network while it renders, whatever its
// input says: it finds git by PATH, and fetches by [http.DefaultTransport]. Both belong to
// the process, which therefore finds no program while it renders, and has to send what it
// sends meanwhile by a transport of its own.
var guard struct {
	sync.Mutex
	renders   int // that are going on
	path      string
	transport http.RoundTripper
}

var errNetwork = errors.New("rendering fetches nothing")

type noTransport struct{}

func (noTransport) RoundTrip(*http.Request) (*http.Response, error) { return nil, errNetwork }

// guarded calls do with the guard up.
func guarded(do func()) {
	guard.Lock()
	if guard.renders++; guard.renders == 1 {
		guard.path, guard.transport = os.Getenv("PATH"), http.DefaultTransport
		os.Setenv("PATH", "")
		http.DefaultTransport = noTransport{}
	}
	guard.Unlock()
	defer func() {
		guard.Lock()
		defer guard.Unlock()
		if guard.renders--; guard.renders == 0 {
			os.Setenv("PATH", guard.path)
			http.DefaultTransport = guard.transport
		}
	}()
	do()
}
