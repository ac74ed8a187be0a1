package registry

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// caller is who sent a request that changes something.
type caller struct {
	// name says it to people.
	name string
	// namespace is the one that the caller may push to; empty for none, or if it is root.
	namespace string
	root      bool
	// secret tells that the caller logged in with a password.
	secret bool
}

// may says whether the caller may change a repository.
func (c caller) may(t target) bool {
	return c.root || c.namespace != "" && c.namespace == t.namespace()
}

// caller finds out who sent a request: by the password if there is one, else by the
// connection's address. No header that a client can write says who it is. The error
// is a *refusal.
func (r *Registry) caller(req *http.Request) (caller, error) {
	addr, err := netip.ParseAddrPort(req.RemoteAddr)
	if err != nil {
		return caller{}, unavailable("the connection has no address")
	}
	from := addr.Addr().Unmap().WithZone("")
	if secret, ok := password(req); ok {
		return r.holder(req, from, secret)
	}
	pod, err := r.opts.Cluster.Pod(req.Context(), from)
	switch {
	case err == nil && pod.Namespace != "":
		return caller{name: fmt.Sprintf("pod %s/%s at %s", pod.Namespace, pod.Name, from), namespace: pod.Namespace}, nil
	case errors.Is(err, ErrHostNetwork):
		return caller{name: fmt.Sprintf("%s, which is the node or a pod on the node's network", from)}, nil
	case errors.Is(err, ErrUnknown):
		return caller{name: fmt.Sprintf("%s, which is no running pod's address", from)}, nil
	}
	r.log.Error("asking the cluster whose an address is", "address", from, "error", err)
	return caller{}, unavailable("the cluster does not say now whose address " + from.String() + " is; try again")
}

// holder finds out whose a password is.
func (r *Registry) holder(req *http.Request, from netip.Addr, secret string) (caller, error) {
	if r.opts.RootPassword != "" {
		got, want := sha256.Sum256([]byte(secret)), sha256.Sum256([]byte(r.opts.RootPassword))
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			return caller{name: fmt.Sprintf("root at %s", from), root: true, secret: true}, nil
		}
	}
	account, err := r.opts.Cluster.ServiceAccount(req.Context(), secret)
	switch {
	case err == nil && account.Namespace != "":
		name := fmt.Sprintf("service account %s/%s at %s", account.Namespace, account.Name, from)
		return caller{name: name, namespace: account.Namespace, secret: true}, nil
	case errors.Is(err, ErrUnknown):
		return caller{}, &refusal{status: http.StatusUnauthorized, code: "UNAUTHORIZED", login: true,
			message: "the password is no service account's valid token; a pod needs none to push below its own namespace"}
	}
	r.log.Error("asking the cluster whose a token is", "address", from, "error", err)
	return caller{}, unavailable("the cluster does not say now whose the token is; try again")
}

// password returns what a request says to prove who sent it. Some clients send an empty
// user with an empty password when they have none.
func password(req *http.Request) (string, bool) {
	header := req.Header.Get("Authorization")
	if user, secret, ok := req.BasicAuth(); ok {
		return secret, user != "" || secret != ""
	}
	scheme, secret, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		secret = "" // of a scheme that is nobody's here
	}
	return strings.TrimSpace(secret), header != ""
}

// authorize returns who sent a request that changes something, and the *refusal if it
// may not.
func (r *Registry) authorize(req *http.Request, t target) (caller, error) {
	c, err := r.caller(req)
	if err != nil {
		return c, err
	}
	if c.may(t) {
		return c, nil
	}
	allowed := "which may read only"
	if c.namespace != "" {
		allowed = fmt.Sprintf("which may push below %s/ only", c.namespace)
	}
	e := denied(fmt.Sprintf("%s to %s refused: you are %s, %s; pods of namespace %s may, and whoever sends a token of its service accounts as password",
		action(req, t), t, c.name, allowed, t.namespace()))
	if !c.secret {
		e.status, e.code, e.login = http.StatusUnauthorized, "UNAUTHORIZED", true
	}
	return c, e
}

// action says what a request would do.
func action(req *http.Request, t target) string {
	if req.Method == http.MethodDelete && t.kind != kindUpload {
		return "deleting"
	}
	return "pushing"
}
