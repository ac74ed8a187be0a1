package gateway

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// A seen is a request as a published service got it.
type seen struct {
	Service string
	Method  string
	URI     string
	Header  http.Header
}

// identity returns the values of headers that an application takes for who is signed in.
// Python's and others' servers do not tell "-" and "_" apart.
func (s seen) identity() []string {
	var found []string
	for name, values := range s.Header {
		switch strings.ToLower(strings.ReplaceAll(name, "_", "-")) {
		case "kubeflow-userid", "kubeflow-groups":
			found = append(found, values...)
		}
	}
	return found
}

// An echo is what answers in the place of all published services: each request as it came.
type echo struct {
	mu   sync.Mutex
	seen []seen
}

func (e *echo) serve(t *testing.T, service, addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := seen{Service: service, Method: r.Method, URI: r.RequestURI, Header: r.Header}
		e.mu.Lock()
		e.seen = append(e.seen, s)
		e.mu.Unlock()
		json.NewEncoder(w).Encode(s)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
}

// take returns what was seen since it was last called.
func (e *echo) take() []seen {
	e.mu.Lock()
	defer e.mu.Unlock()
	seen := e.seen
	e.seen = nil
	return seen
}
