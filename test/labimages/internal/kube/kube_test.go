package kube

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func TestClient(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "Bearer secret" || r.Header.Get("Content-Type") != "application/json" || string(body) != `{"a":1}` {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"kind":"Status","message":"not you"}`)
			return
		}
		io.WriteString(w, `{"b":2}`)
	}))
	defer srv.Close()
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	for name, data := range map[string]string{"ca.crt": string(ca), "namespace": "lab\n", "token": "secret\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := New(srv.URL, dir)
	if err != nil {
		t.Fatal(err)
	}
	if c.Namespace != "lab" {
		t.Errorf("namespace is %q", c.Namespace)
	}
	var out struct{ B int }
	if err := c.Do(t.Context(), http.MethodPost, "/x", "application/json", map[string]int{"a": 1}, &out); err != nil || out.B != 2 {
		t.Errorf("got %+v, %v", out, err)
	}
	// The token is read anew each time.
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Do(t.Context(), http.MethodPost, "/x", "application/json", map[string]int{"a": 1}, nil); !IsStatus(err, http.StatusForbidden) || err.Error() != "API server says 403: not you" {
		t.Errorf("got %v", err)
	}
	other := httptest.NewTLSServer(http.NotFoundHandler())
	defer other.Close()
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(other.URL, dir); err == nil {
		t.Error("a service account without a certificate is taken")
	}
}
