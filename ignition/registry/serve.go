package registry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"atoll/ignition/limit"
)

// Bounds on connections. One client pushes with some ten at a time, containerd pulls
// with as many.
const (
	maxConns      = 1024
	maxPerSource  = 64
	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10 // bytes; a token has some 1,300
	// stallTimeout is how long a client may neither send nor take a byte.
	stallTimeout = time.Minute
)

// Serve serves the registry on all listeners until ctx ends or one of them fails. A client
// that stalls is given up, and one address can hold no more than some connections; requests under
// way when ctx ends have ten seconds.
func (r *Registry) Serve(ctx context.Context, listeners ...net.Listener) error {
	server := &http.Server{
		Handler: unstalled(r), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelWarn),
	}
	tasks, ctx := errgroup.WithContext(ctx)
	for _, ln := range listeners {
		tasks.Go(func() error {
			err := server.Serve(limit.Listen(ln, maxConns, maxPerSource))
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return err
		})
	}
	tasks.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if server.Shutdown(end) != nil { // somebody is slow
			server.Close() // Serve says what is to be said
		}
		return nil
	})
	return tasks.Wait()
}

// unstalled gives up on clients that neither send nor take anything for a while. How long
// all of it takes is not bounded: layers are large.
func unstalled(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := http.NewResponseController(w)
		req.Body = &patientBody{req.Body, c}
		next.ServeHTTP(&patientWriter{w, c}, req)
		// The server still sends what is buffered, and reads what nobody has read.
		c.SetReadDeadline(time.Now().Add(stallTimeout)) // works on every connection of this server
		c.SetWriteDeadline(time.Now().Add(stallTimeout))
	})
}

// patientBody has a deadline for each read, and none between them: one that passes
// then would end the request.
type patientBody struct {
	io.ReadCloser
	c *http.ResponseController
}

func (b *patientBody) Read(p []byte) (int, error) {
	b.c.SetReadDeadline(time.Now().Add(stallTimeout))
	defer b.c.SetReadDeadline(time.Time{})
	b.c.SetWriteDeadline(time.Now().Add(stallTimeout)) // of "100 Continue"
	return b.ReadCloser.Read(p)
}

// patientWriter has a new deadline for each write.
type patientWriter struct {
	http.ResponseWriter
	c *http.ResponseController
}

func (w *patientWriter) Write(p []byte) (int, error) {
	w.c.SetWriteDeadline(time.Now().Add(stallTimeout))
	return w.ResponseWriter.Write(p)
}

// Unwrap lets an [http.ResponseController] through.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
