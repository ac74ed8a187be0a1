package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	sessionCookie = "authservice_session"
	stateCookie   = "oidc_state_csrf"
	sessionAge    = 24 * time.Hour
)

// A judge answers the gateway's question whether a request may pass: 200 is yes, with the
// user's name in headers, and any other answer is what the browser gets.
type judge struct {
	prefix      string   // of its own pages, with slashes around
	free        []string // prefixes of paths that need no sign-in
	afterLogout string
	userHeader  string
	userPrefix  string
	userClaim   string
	groupHeader string

	ready    atomic.Bool // what follows is set
	provider *oidc.Provider
	client   *oauth2.Config
	sessions *store
	states   *store
}

// entry is what a store keeps: a session's user, or the page that a sign-in started at.
type entry struct {
	User    string
	Groups  []string
	Page    string
	Expires time.Time
}

// ServeHTTP has the real one's order: its CORS handler answers OPTIONS before anything
// else looks at the request, then its router cleans the path, and what is free is free for
// the decoded path.
func (j *judge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodOptions {
		return
	}
	if clean := cleanPath(r.URL.Path); clean != r.URL.Path {
		to := *r.URL
		to.Path, to.RawPath = clean, ""
		w.Header().Set("Location", to.String())
		w.WriteHeader(http.StatusMovedPermanently)
		return
	}
	ready := j.ready.Load()
	switch {
	case ready && r.Method == http.MethodGet && r.URL.Path == j.prefix+"oidc/callback":
		j.callback(w, r)
		return
	case ready && r.Method == http.MethodPost && r.URL.Path == j.prefix+"logout":
		j.logout(w, r)
		return
	}
	for _, prefix := range j.free {
		if strings.HasPrefix(r.URL.Path, prefix) {
			w.Write([]byte("OK"))
			return
		}
	}
	if !ready {
		http.Error(w, "OIDC Setup is not complete yet.", http.StatusServiceUnavailable)
		return
	}
	j.authenticate(w, r)
}

// cleanPath is how gorilla/mux cleans a path: like path.Clean, but a slash at the end stays.
func cleanPath(p string) string {
	clean := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// authenticate says who is signed in, or sends the browser to sign in.
func (j *judge) authenticate(w http.ResponseWriter, r *http.Request) {
	id := bearer(r)
	if id == "" {
		id = r.Header.Get("X-Auth-Token")
	}
	if c, err := r.Cookie(sessionCookie); id == "" && err == nil {
		id = c.Value
	}
	if session, ok := j.sessions.get(id); ok {
		w.Header().Set(j.userHeader, j.userPrefix+session.User)
		w.Header().Set(j.groupHeader, strings.Join(session.Groups, ","))
		return
	}
	// Kept for ever, as the real one takes nanoseconds for seconds.
	page := url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	state, err := j.states.put(entry{Page: page.String(), Expires: time.Now().Add(38000 * sessionAge)})
	if err != nil {
		fail(w, http.StatusInternalServerError, "Failed to save state in store.", err)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: stateCookie, Value: state, Path: "/", MaxAge: int(20 * time.Minute)})
	http.Redirect(w, r, j.client.AuthCodeURL(state), http.StatusFound)
}

// callback is where the provider sends the browser back to.
func (j *judge) callback(w http.ResponseWriter, r *http.Request) {
	code, state := r.FormValue("code"), r.FormValue("state")
	if code == "" {
		http.Redirect(w, r, j.prefix+"site/homepage", http.StatusFound)
		return
	}
	if state == "" {
		http.Error(w, "Missing url parameter: state", http.StatusBadRequest)
		return
	}
	cookie, err := r.Cookie(stateCookie)
	origin, known := j.states.get(state)
	if err != nil || cookie.Value != state || !known {
		fail(w, http.StatusBadRequest, "CSRF check failed. This may happen if you opened the login form in more than 1 tabs. Please try to login again.", err)
		return
	}
	j.states.delete(state)
	http.SetCookie(w, &http.Cookie{Name: stateCookie, Path: "/", MaxAge: -1})

	token, err := j.client.Exchange(r.Context(), code)
	if err != nil {
		fail(w, http.StatusInternalServerError, "Failed to exchange authorization code with token.", err)
		return
	}
	raw, _ := token.Extra("id_token").(string)
	if _, err := j.provider.Verifier(&oidc.Config{ClientID: j.client.ClientID}).Verify(r.Context(), raw); err != nil {
		fail(w, http.StatusInternalServerError, "Unable to verify ID token.", err)
		return
	}
	claims := map[string]any{}
	info, err := j.provider.UserInfo(r.Context(), j.client.TokenSource(r.Context(), token))
	if err == nil {
		err = info.Claims(&claims)
	}
	user, ok := claims[j.userClaim].(string)
	if err != nil || !ok {
		fail(w, http.StatusInternalServerError, "Not able to fetch userinfo.", err)
		return
	}
	session := entry{User: user, Expires: time.Now().Add(sessionAge)}
	groups, _ := claims["groups"].([]any)
	for _, g := range groups {
		if name, ok := g.(string); ok {
			session.Groups = append(session.Groups, name)
		}
	}
	id, err := j.sessions.put(session)
	if err != nil {
		fail(w, http.StatusInternalServerError, "Error creating user session", err)
		return
	}
	// Neither Secure nor HttpOnly, as the real one's.
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: id, Path: "/", MaxAge: int(sessionAge.Seconds()), SameSite: http.SameSiteLaxMode})
	slog.Info("signed in", "user", user)
	http.Redirect(w, r, origin.Page, http.StatusFound)
}

// logout takes the session's name in the header Authorization only. Its answer is 201, as
// 200 would let the request pass.
func (j *judge) logout(w http.ResponseWriter, r *http.Request) {
	id := bearer(r)
	session, ok := j.sessions.get(id)
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if err := j.sessions.delete(id); err != nil {
		fail(w, http.StatusInternalServerError, "Couldn't delete user session", err)
		return
	}
	slog.Info("signed out", "user", session.User)
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	json.NewEncoder(w).Encode(map[string]string{"afterLogoutURL": j.afterLogout})
}

func bearer(r *http.Request) string {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return ""
	}
	return strings.TrimSpace(token)
}

func fail(w http.ResponseWriter, status int, message string, err error) {
	slog.Warn(message, "err", err)
	http.Error(w, message, status)
}
