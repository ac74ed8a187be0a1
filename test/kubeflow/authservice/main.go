// Authservice stands in for Kubeflow's OIDC AuthService in tests, where the real one cannot
// be had: it does what was seen of commit e236439 of
// https://github.com/arrikto/oidc-authservice, faults included, with an OpenID Connect
// provider that is real, and reads the same settings. It says in its log and in the header
// X-Stand-In of each answer what it is. It is for tests only.
//
// What it leaves out: identities of service accounts and of ID tokens in a header, groups
// that may not sign in, and the log line with the client's secret.
package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const standIn = "stand-in for oidc-authservice e236439"

func main() {
	slog.Info("this is a " + standIn + ", for tests only")
	if err := run(context.Background()); err != nil {
		slog.Error("stopping", "err", err)
		os.Exit(1)
	}
}

// run serves until a server fails. The checks' server answers before the provider does:
// the provider is reached through the gateway that asks here.
func run(ctx context.Context) error {
	j, err := newJudge()
	if err != nil {
		return err
	}
	pages, err := newPages(list("TEMPLATE_PATH", ""))
	if err != nil {
		return err
	}
	host := os.Getenv("SERVER_HOSTNAME")
	failed := make(chan error, 4)
	for addr, handler := range map[string]http.Handler{
		net.JoinHostPort(host, env("SERVER_PORT", "8080")):        j,
		net.JoinHostPort("", env("READINESS_PROBE_PORT", "8081")): readiness(&j.ready),
		net.JoinHostPort(host, env("WEB_SERVER_PORT", "8082")):    pages,
	} {
		server := &http.Server{Addr: addr, Handler: sayStandIn(handler), ReadHeaderTimeout: 10 * time.Second}
		go func() { failed <- server.ListenAndServe() }()
	}
	go func() {
		if err := j.setUp(ctx); err != nil {
			failed <- err
		}
	}()
	return <-failed
}

// setUp waits for the provider, opens the stores and says that the judge is ready.
func (j *judge) setUp(ctx context.Context) error {
	for {
		provider, err := oidc.NewProvider(ctx, os.Getenv("OIDC_PROVIDER"))
		if err == nil {
			j.provider = provider
			break
		}
		slog.Warn("waiting for the provider", "err", err)
		time.Sleep(time.Second)
	}
	endpoint := j.provider.Endpoint()
	if auth := os.Getenv("OIDC_AUTH_URL"); auth != "" {
		endpoint.AuthURL = auth
	}
	scopes := list("OIDC_SCOPES", "openid,email")
	if !slices.Contains(scopes, oidc.ScopeOpenID) {
		scopes = append([]string{oidc.ScopeOpenID}, scopes...)
	}
	j.client = &oauth2.Config{
		ClientID:     os.Getenv("CLIENT_ID"),
		ClientSecret: os.Getenv("CLIENT_SECRET"),
		Endpoint:     endpoint,
		RedirectURL:  j.prefix + "oidc/callback",
		Scopes:       scopes,
	}
	var err error
	if j.sessions, err = openStore(env("SESSION_STORE_PATH", "/var/lib/authservice/data.db")); err != nil {
		return err
	}
	if j.states, err = openStore(env("OIDC_STATE_STORE_PATH", "/var/lib/authservice/oidc_state.db")); err != nil {
		return err
	}
	j.ready.Store(true)
	slog.Info("ready")
	return nil
}

// newJudge reads the settings that matter before the provider answers.
func newJudge() (*judge, error) {
	for _, name := range []string{"OIDC_PROVIDER", "CLIENT_ID", "CLIENT_SECRET", "AUTHSERVICE_URL_PREFIX"} {
		if os.Getenv(name) == "" {
			return nil, errors.New(name + " is not set")
		}
	}
	prefix, err := url.Parse(os.Getenv("AUTHSERVICE_URL_PREFIX"))
	if err != nil {
		return nil, err
	}
	return &judge{
		prefix:      prefix.Path,
		free:        append(list("SKIP_AUTH_URLS", ""), prefix.Path),
		afterLogout: env("AFTER_LOGOUT_URL", prefix.Path+"site/after_logout"),
		userHeader:  env("USERID_HEADER", "kubeflow-userid"),
		userPrefix:  os.Getenv("USERID_PREFIX"),
		userClaim:   env("USERID_CLAIM", "email"),
		groupHeader: env("GROUPS_HEADER", "kubeflow-groups"),
	}, nil
}

func readiness(ready *atomic.Bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
}

func sayStandIn(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Stand-In", standIn)
		h.ServeHTTP(w, r)
	})
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// list is a setting whose values have commas between them.
func list(name, otherwise string) []string {
	var values []string
	for v := range strings.SplitSeq(env(name, otherwise), ",") {
		if v = strings.TrimSpace(v); v != "" {
			values = append(values, v)
		}
	}
	return values
}
