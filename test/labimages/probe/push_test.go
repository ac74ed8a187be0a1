package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// TestPush pushes to a real registry, of which all but one namespace is closed.
func TestPush(t *testing.T) {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && !strings.HasPrefix(r.URL.Path, "/v2/mine/") {
			http.Error(w, "not yours", http.StatusForbidden)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	for range 2 { // again, as a Job does
		if err := push(t.Context(), host+"/mine/probe:1", "", host+"/other/probe:1,"+host+"/docker.io/library/x:1", host+"/mine/probe:1"); err != nil {
			t.Fatal(err)
		}
	}
	ref, err := name.NewTag(host + "/mine/probe:1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil || config.OS != "linux" || len(config.RootFS.DiffIDs) != 1 {
		t.Errorf("configuration is %+v, %v", config, err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil { // to its end: its digest is computed
		t.Error(err)
	}
	for _, tc := range []struct{ name, refused, readable, want string }{
		{host + "/other/probe:1", "", "", "403 Forbidden: not yours"},
		{host + "/mine/probe:1", host + "/mine/x:1", "", "mine/x:1 was to be refused"},
		{host + "/mine/probe:1", "", host + "/mine/none:1", "reading " + host + "/mine/none:1"},
		{"none", "", "", `"none" is not HOST/PATH:TAG`},
	} {
		if err := push(t.Context(), tc.name, "", tc.refused, tc.readable); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: got %v", tc, err)
		}
	}
	if err := refuses(t.Context(), host+"/mine/x:1"); err == nil || !strings.Contains(err.Error(), "was to be refused") {
		t.Errorf("what is taken: %v", err)
	}
}

// TestPushWithToken pushes to a real registry that takes nothing without a password.
func TestPushWithToken(t *testing.T) {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); r.Method != http.MethodGet && password != "secret" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	defer srv.Close()
	name := strings.TrimPrefix(srv.URL, "http://") + "/mine/probe:1"
	for text, want := range map[string]string{"secret\n": "", "other": "401 Unauthorized: who are you"} {
		token := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(token, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := push(t.Context(), name, token, name, name)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("with the token %q: got %v, want %q", text, err, want)
		}
	}
	if err := push(t.Context(), name, "/none", "", ""); err == nil || !strings.Contains(err.Error(), "/none") {
		t.Errorf("without the token's file: %v", err)
	}
}
