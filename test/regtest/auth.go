package regtest

import (
	"fmt"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Auth is how the registry wants a login. The zero value wants a token, which anyone
// gets from the registry's own host, with the scope that the challenge names.
type Auth struct {
	// User and Password are asked for by the token server, or by the registry if Basic.
	User, Password string
	// Basic wants user and password with every request, and no tokens.
	Basic bool
	// Realm is the token server's URL. Any host of the registry will do, at the path
	// /token or below it.
	Realm string
	// Uses is how many requests a token is good for; 0 for any number.
	Uses int
	// Challenge gives the WWW-Authenticate lines of a refusal. Nil gives a plain one.
	Challenge func(realm, scope string) []string
	// Answer gives the body of the token server's answer. Nil says "token".
	Answer func(token string) string
}

// Presign is how blobs are served by a storage.
type Presign struct {
	// At is the storage's host and port: any host of the registry.
	At string
	// Uses is how many requests a URL is good for; 0 for any number.
	Uses int
}

// pass is a token or the signature of a URL.
type pass struct {
	scopes []string
	uses   int // left; negative for any number
}

// Login makes the registry want a login, with nil none.
func (r *Registry) Login(a *Auth) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.auth = a
}

// Store sends whoever wants a blob to a storage, with nil to none.
func (r *Registry) Store(p *Presign) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.presign = p
}

// Expire makes every token and signed URL worthless.
func (r *Registry) Expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.passes)
}

// issue makes a pass and gives its name. The lock is held.
func (r *Registry) issue(scopes []string, uses int) string {
	r.issued++
	name := fmt.Sprintf("pass-%d", r.issued)
	if uses == 0 {
		uses = -1
	}
	r.passes[name] = &pass{scopes, uses}
	return name
}

// spend uses a pass, if there is one and it is for the scope. The lock is held.
func (r *Registry) spend(name, scope string) bool {
	p := r.passes[name]
	if p == nil || p.uses == 0 || scope != "" && !p.covers(scope) {
		return false
	}
	p.uses--
	return true
}

func (p *pass) covers(scope string) bool {
	for _, have := range p.scopes {
		if have == scope {
			return true
		}
	}
	return false
}

// allowed says whether the request carries the right login; if not the answer is the
// refusal. The lock is held.
func (r *Registry) allowed(q *Request, a *Answer) bool {
	if r.auth == nil {
		return true
	}
	scope := ""
	if q.Repository != "" {
		scope = "repository:" + q.Repository + ":pull"
	}
	if r.auth.Basic && basic(q.Authorization) == r.auth.User+":"+r.auth.Password {
		return true
	}
	if token, ok := strings.CutPrefix(q.Authorization, "Bearer "); ok && !r.auth.Basic && r.spend(token, scope) {
		return true
	}
	realm := r.auth.Realm
	if realm == "" {
		realm = r.URL() + "/token"
	}
	lines := []string{fmt.Sprintf(`Bearer realm="%s",service="regtest"`, realm)}
	if scope != "" {
		lines[0] += fmt.Sprintf(`,scope="%s"`, scope)
	}
	if r.auth.Basic {
		lines[0] = `Basic realm="regtest"`
	}
	if r.auth.Challenge != nil {
		lines = r.auth.Challenge(realm, scope)
	}
	a.refuse(http.StatusUnauthorized, "UNAUTHORIZED")
	a.Header["Www-Authenticate"] = lines
	return false
}

// token is the token server's answer. The lock is held.
func (r *Registry) token(q *Request, req *http.Request, a *Answer) {
	switch {
	case r.auth == nil || q.Method != http.MethodGet:
		a.refuse(http.StatusNotFound, "UNSUPPORTED")
		return
	case r.auth.User != "" && basic(q.Authorization) != r.auth.User+":"+r.auth.Password:
		a.refuse(http.StatusUnauthorized, "UNAUTHORIZED")
		return
	}
	var scopes []string
	for _, s := range req.URL.Query()["scope"] {
		scopes = append(scopes, strings.Fields(s)...)
	}
	token := r.issue(scopes, r.auth.Uses)
	body := fmt.Sprintf(`{"token":%q,"expires_in":300}`, token)
	if r.auth.Answer != nil {
		body = r.auth.Answer(token)
	}
	a.content("application/json", []byte(body))
}

// basic gives the user:password of a header, or nothing.
func basic(authorization string) string {
	req := http.Request{Header: http.Header{"Authorization": {authorization}}}
	user, password, _ := req.BasicAuth()
	return user + ":" + password
}

// redirect sends to the storage. The lock is held.
func (r *Registry) redirect(h v1.Hash, a *Answer) {
	a.Status = http.StatusTemporaryRedirect
	a.Header.Set("Location", fmt.Sprintf("http://%s/storage/%s?signature=%s", r.presign.At, h, r.issue(nil, r.presign.Uses)))
}

// signed says whether the storage serves the request; if not the answer is the refusal.
// As S3 does, it refuses a login beside a signature. The lock is held.
func (r *Registry) signed(q *Request, a *Answer) bool {
	switch signature, _ := strings.CutPrefix(q.Query, "signature="); {
	case q.Authorization != "":
		a.refuse(http.StatusBadRequest, "")
		a.content("application/xml", []byte("<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>"))
	case !r.spend(signature, ""):
		a.refuse(http.StatusForbidden, "")
		a.content("application/xml", []byte("<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"))
	default:
		return true
	}
	return false
}
