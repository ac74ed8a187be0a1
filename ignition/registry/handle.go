package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// Bounds on manifests, which are read into memory.
const (
	maxManifest     = 4 << 20 // bytes, as Distribution has it
	maxManifests    = 32      // at a time
	manifestTimeout = 30 * time.Second
)

// ServeHTTP serves the OCI distribution API.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if err := r.serve(w, req); err != nil {
		var e *refusal
		if !errors.As(err, &e) {
			r.log.Error("serving", "method", req.Method, "path", req.URL.Path, "error", err)
			e = &refusal{status: http.StatusInternalServerError, code: "UNKNOWN", message: "the registry cannot do this now; its log says why"}
		}
		e.write(w)
	}
}

// serve answers a request, or returns what it should be answered with.
func (r *Registry) serve(w http.ResponseWriter, req *http.Request) error {
	t, err := parseTarget(req.URL)
	if errors.Is(err, errNotAPI) {
		return &refusal{status: http.StatusNotFound, code: "UNSUPPORTED", message: err.Error()}
	}
	if err != nil {
		return badName(err)
	}
	reading := req.Method == http.MethodGet || req.Method == http.MethodHead
	switch {
	case t.kind == kindPing:
		return r.ping(w, req)
	case t.host != "" && !reading:
		return denied(t.String() + " is an image of the appliance itself, which nobody changes: push below the name of a namespace")
	case t.host != "":
		if t.kind == kindUpload {
			return badName(errNotAPI)
		}
		r.bundled.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), targetKey{}, t)))
		return nil
	case reading && t.kind != kindUpload:
		if req.Method == http.MethodHead {
			lock, err := r.lock(req.Context())
			if err != nil {
				return err
			}
			defer lock.unlock()
			r.keep(t)
		}
		r.pushed.ServeHTTP(w, clean(req, t, nil))
		return nil
	}
	return r.change(w, req, t)
}

// ping tells a client that this is a registry, and whether its password is right. That
// there are passwords is said too: some send none otherwise.
func (r *Registry) ping(w http.ResponseWriter, req *http.Request) error {
	if _, ok := password(req); ok {
		if _, err := r.caller(req); err != nil {
			return err
		}
	}
	w.Header().Set("WWW-Authenticate", challenge)
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, "{}") // fails if the client is gone
	return nil
}

// change serves what needs a login.
func (r *Registry) change(w http.ResponseWriter, req *http.Request, t target) error {
	if t.kind == kindCatalog || t.kind == kindTags {
		return &refusal{status: http.StatusMethodNotAllowed, code: "UNSUPPORTED", message: "lists are only read"}
	}
	c, err := r.authorize(req, t)
	if err != nil {
		r.log.Warn("refused", "method", req.Method, "image", t.String(), "by", c.name, "error", err)
		return err
	}
	body := req.Body
	if t.kind == kindManifest && req.Method == http.MethodPut {
		data, err := r.manifest(w, req)
		if err != nil {
			return err
		}
		defer func() { <-r.manifests }()
		if err := r.checkManifest(data); err != nil {
			r.log.Warn("refused", "method", req.Method, "image", t.String(), "by", c.name, "error", err)
			return err
		}
		body = io.NopCloser(bytes.NewReader(data))
	}
	held := &lockedBody{ReadCloser: body, lock: func() (*folderLock, error) { return r.lock(req.Context()) }}
	defer held.unlock()
	if t.kind != kindUpload || t.ref == "" || req.Method == http.MethodDelete {
		if err := held.acquire(); err != nil {
			return err
		}
	}
	var outOfSpace atomic.Pointer[full]
	req = clean(req.WithContext(context.WithValue(req.Context(), fullKey{}, &outOfSpace)), t, held)
	answer := &answer{ResponseWriter: w, full: &outOfSpace, giveUp: func() {
		r.log.Warn("refused", "method", req.Method, "image", t.String(), "by", c.name, "error", outOfSpace.Load())
		if t.kind == kindUpload && t.ref != "" { // nobody goes on with it, and others may need the space
			r.store.Delete(req.Context(), path.Join("/", reposDir, t.repo, "_uploads", t.ref)) // or a collection does
		}
		io.CopyN(io.Discard, body, maxIgnored) // or the client is not told why
	}}
	r.pushed.ServeHTTP(answer, req)
	r.tell(req, t, c, answer.status)
	return nil
}

// manifest reads the manifest in a request. Without an error one of r.manifests is taken.
func (r *Registry) manifest(w http.ResponseWriter, req *http.Request) ([]byte, error) {
	select {
	case r.manifests <- struct{}{}:
	case <-req.Context().Done():
		return nil, unavailable("too many manifests are pushed at once; try again")
	}
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(manifestTimeout)) // where there is a connection
	data, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxManifest))
	if err != nil {
		<-r.manifests
		message := "reading the manifest: " + err.Error()
		return nil, &refusal{status: http.StatusBadRequest, code: "MANIFEST_INVALID", message: message}
	}
	return data, nil
}

// tell logs what was changed.
func (r *Registry) tell(req *http.Request, t target, c caller, status int) {
	switch {
	case status == http.StatusCreated && t.kind == kindManifest:
		r.log.Info("pushed", "image", t.String(), "by", c.name)
	case status == http.StatusAccepted && req.Method == http.MethodDelete && t.kind != kindUpload:
		r.log.Info("deleted", "image", t.String(), "by", c.name)
	}
}

// clean is the request as Distribution's server gets it: for the target that was authorized, and
// without what could make it think otherwise.
func clean(req *http.Request, t target, body io.ReadCloser) *http.Request {
	out := req.Clone(req.Context())
	out.Header = http.Header{}
	for _, name := range []string{"Accept", "Range", "If-None-Match", "Content-Range", "Content-Length", "Content-Type", "User-Agent"} {
		if v := req.Header.Values(name); v != nil {
			out.Header[name] = v
		}
	}
	if t.kind == kindUpload && out.Header.Get("Content-Type") != "" {
		out.Header.Set("Content-Type", "application/octet-stream") // never a form, which would be read for parameters
	}
	query := url.Values{}
	for _, name := range []string{"digest", "mount", "from", "_state", "n", "last"} {
		if v := req.URL.Query().Get(name); v != "" {
			query.Set(name, v)
		}
	}
	if host, repo, err := parseName(query.Get("from")); err != nil || host != "" || repo == "" {
		query.Del("mount") // then it is uploaded
		query.Del("from")
	}
	out.URL = &url.URL{Path: t.path(), RawQuery: query.Encode()}
	out.RequestURI = out.URL.RequestURI()
	if body != nil {
		out.Body = body
	}
	return out
}

// lock takes the folder's shared lock. What a collection took since is counted no more.
func (r *Registry) lock(ctx context.Context) (*folderLock, error) {
	lock, err := lockFolder(ctx, r.opts.Dir, false)
	if ctx.Err() != nil {
		return nil, unavailable("the registry is deleting what nobody needs; try again")
	}
	if err != nil {
		return nil, err
	}
	if g := lock.generation(); r.generation.Swap(g) != g {
		if err := r.store.ledger.count(); err != nil {
			lock.unlock()
			return nil, err
		}
	}
	return lock, nil
}

// lockedBody takes the folder's lock when it has been read, so that a slow upload is
// not waited for by a collection, but what comes after it is.
type lockedBody struct {
	io.ReadCloser
	lock func() (*folderLock, error)
	held *folderLock
}

func (b *lockedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		if failed := b.acquire(); failed != nil {
			return n, failed
		}
	}
	return n, err
}

func (b *lockedBody) acquire() (err error) {
	if b.held == nil {
		b.held, err = b.lock()
	}
	return err
}

func (b *lockedBody) unlock() {
	if b.held != nil {
		b.held.unlock()
	}
}

// keep keeps a blob or manifest from the next collection: somebody asks whether it is there,
// perhaps to push what names it.
func (r *Registry) keep(t target) {
	d, err := digest.Parse(t.ref)
	if err != nil {
		return // a tag, which keeps its manifest anyway
	}
	dir := "_layers"
	if t.kind == kindManifest {
		dir = "_manifests/revisions"
	}
	algorithm, hex := string(d.Algorithm()), d.Encoded()
	r.store.touch(blobFile(algorithm, hex))
	r.store.touch(path.Join(reposDir, t.repo, dir, algorithm, hex, "link"))
}

// answer is Distribution's, unless it is an error for want of space.
type answer struct {
	http.ResponseWriter
	full   *atomic.Pointer[full]
	giveUp func()
	status int
	muted  bool
}

// maxIgnored is how much of a body is read in vain, in bytes: a client that still sends when the
// connection is closed may not see why.
const maxIgnored = 64 << 20

func (a *answer) WriteHeader(status int) {
	if a.status != 0 {
		return
	}
	a.status = status
	if f := a.full.Load(); f != nil && status >= 400 {
		a.muted = true
		a.giveUp()
		denied(f.reason).write(a.ResponseWriter)
		return
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.muted {
		return len(p), nil
	}
	return a.ResponseWriter.Write(p)
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
