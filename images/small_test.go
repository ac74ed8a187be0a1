package images

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestSignaturesAreNotTold: the URL that a registry sends to has a signature, which is as
// good as a password. No error has it, and no log, however the storage fails.
func TestSignaturesAreNotTold(t *testing.T) {
	const signed = "?X-Amz-Signature=s3cret"
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cut" && r.Header.Get("Range") == "" {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "begin")
			http.NewResponseController(w).Flush()
		}
		panic(http.ErrAbortHandler) // breaks the connection off
	}))
	defer storage.Close()
	for name, to := range map[string]string{
		"cut": storage.URL + "/cut" + signed, "broken": storage.URL + "/blob" + signed, "not there": "http://127.0.0.1:1/blob" + signed,
		"no port": "http://127.0.0.1:port/blob" + signed, "control byte": storage.URL + "/\x01" + signed,
		"user": "http://u:s3cret@127.0.0.1:port/blob" + signed, "no http": "ftp://127.0.0.1/blob" + signed,
		"link-local": "http://169.254.169.254/blob" + signed,
	} {
		registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Location"] = []string{to}
			w.WriteHeader(http.StatusTemporaryRedirect)
		}))
		var log logged
		c, err := newClient(&Options{Log: log.logger(), pause: time.Microsecond, idle: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		src := c.plainSource(registry.URL + "/blob")
		_, streamed := io.ReadAll(c.stream(context.Background(), src, -1))
		_, opened := src.open(context.Background(), part{offset: 5, size: 10})
		req, err := http.NewRequest(http.MethodGet, src.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, small := getSmall(c.http, req, 1000)
		for _, err := range []error{streamed, opened, small} {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
			checkNoSecret(t, err)
		}
		if checkNoSecret(t, errors.New(log.String())); name == "cut" && !strings.Contains(log.String(), "connection broke") {
			t.Errorf("log does not tell: %s", &log)
		}
		registry.Close()
	}
	err := error(&url.Error{Op: "Get", URL: "https://a.test/" + signed, Err: &url.Error{Op: "Get", URL: "https://b.test/" + signed, Err: io.EOF}})
	hideQuery(err)
	checkNoSecret(t, err)
}
