package firstboot

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"atoll/bundle"
	"atoll/ignition/limit"
)

// StatusAddr is where the node tells its status to the network.
const StatusAddr = ":9180"

// StatusUser is the system user and group that serves the status; the image has it.
const StatusUser = "atoll-status"

const (
	// statusToken is the secret with which the network is told the whole status.
	statusToken = "status-token"
	// tokenDigest is beside the status file.
	tokenDigest = statusToken + digestSuffix
)

// Bounds on those who ask for the status. An answer has some KiB, and asking takes
// milliseconds.
const (
	statusConns     = 256
	statusPerSource = 16
	headerTimeout   = 5 * time.Second
	requestTimeout  = 10 * time.Second
	maxHeader       = 8 << 10 // bytes
)

// blobTimeout bounds how long one blob may take on loopback. The largest layers have
// some 10 GB, and disks may be slow.
const blobTimeout = time.Hour

// RegistryServer is the server of the node's registry. Half a request and an idle
// connection are given up soon; a blob may take long.
func RegistryServer(h http.Handler) *http.Server {
	return &http.Server{
		// No ReadTimeout: it would go on while a blob is sent, and end that.
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.ContentLength != 0 { // nothing here wants a body, but the server reads it to its end
				http.NewResponseController(w).SetReadDeadline(time.Now().Add(requestTimeout)) // works on every connection of this server
			}
			h.ServeHTTP(w, req)
		}),
		ReadHeaderTimeout: headerTimeout, WriteTimeout: blobTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHeader,
	}
}

// ServeStatus serves a status file on the listener until ctx ends. Strangers can
// neither hold more than some connections nor hold one for long.
func ServeStatus(ctx context.Context, ln net.Listener, path string) error {
	server := &http.Server{
		Handler: StatusHandler(path), ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout,
		WriteTimeout: requestTimeout, MaxHeaderBytes: maxHeader,
	}
	server.SetKeepAlivesEnabled(false)
	stop := context.AfterFunc(ctx, func() { server.Close() }) // Serve says what is to be said
	defer stop()
	err := server.Serve(limit.Listen(ln, statusConns, statusPerSource))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// StatusHandler serves the status file, read-only: GET /status returns it, GET /healthz
// answers 200 once the stack is ready and 503 before. What a status quotes, like logs,
// errors and what a phase waits for, is only for those who have the node's token; all
// others are told names and states. Where they come from makes no difference: a pod on
// the host's network, and a page in a browser, may come from loopback too.
func StatusHandler(path string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, req *http.Request) {
		whole, err := authorized(req, filepath.Join(filepath.Dir(path), tokenDigest))
		if err != nil {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "not the token of this node: sudo atoll node secret "+statusToken, http.StatusUnauthorized)
			return
		}
		s, err := ReadStatus(path)
		if err != nil {
			http.Error(w, "no status yet", http.StatusServiceUnavailable)
			return
		}
		if !whole {
			s = public(s)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		json.NewEncoder(w).Encode(s) // the client's loss if it is gone
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if s, err := ReadStatus(path); err != nil || s.State != bundle.StateReady {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// public is what anyone may know of a status.
func public(s bundle.Status) bundle.Status {
	p := bundle.Status{Appliance: s.Appliance, State: s.State, Updated: s.Updated}
	for _, phase := range s.Phases {
		p.Phases = append(p.Phases, bundle.PhaseStatus{Name: phase.Name, State: phase.State, Seconds: phase.Seconds})
	}
	return p
}

// authorized tells whether a request has the token whose digest is in the file. One
// that has another is an error; one that has none is not.
func authorized(req *http.Request, digestPath string) (bool, error) {
	header := req.Header.Get("Authorization")
	if header == "" {
		return false, nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	want, err := os.ReadFile(digestPath)
	if err != nil {
		return false, err
	}
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	// Both sides are digests, so their length tells nothing either.
	same := subtle.ConstantTimeCompare([]byte(hex.EncodeToString(got[:])), []byte(strings.TrimSpace(string(want)))) == 1
	if !same || !strings.EqualFold(scheme, "Bearer") {
		return false, errors.New("wrong token")
	}
	return true, nil
}
