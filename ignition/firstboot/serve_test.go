package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"atoll/bundle"
)

func TestStatusHandler(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status.json")
	server := httptest.NewServer(StatusHandler(path))
	defer server.Close()
	for _, tc := range []struct {
		status          string
		healthz, report int
	}{
		{"", 503, 503},
		{`{"state":"running"}`, 503, 200},
		{`{"state":"ready"}`, 200, 200},
		{`{"state":"failed"}`, 503, 200},
		{`{`, 503, 503},
	} {
		if tc.status != "" {
			if err := os.WriteFile(path, []byte(tc.status), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		h, _ := ask(t, "GET", server.URL+"/healthz", "")
		r, _ := ask(t, "GET", server.URL+"/status", "")
		if h != tc.healthz || r != tc.report {
			t.Errorf("%s: healthz %d, status %d, want %d, %d", tc.status, h, r, tc.healthz, tc.report)
		}
	}
	if got, _ := ask(t, "POST", server.URL+"/status", ""); got != http.StatusMethodNotAllowed {
		t.Errorf("POST returns %d", got)
	}
}

// ask sends a request, with an Authorization header unless that is empty.
func ask(t *testing.T, method, url, authorization string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// TestStatusForStrangers checks that the network is told nothing that a status quotes,
// and all of it with the node's token.
func TestStatusForStrangers(t *testing.T) {
	o := testOptions(t)
	opts := o.withDefaults()
	const quoted = "hunter2"
	err := opts.phase("one", func() error {
		opts.waiting("one", "waits for "+quoted)
		return &failure{errors.New("bad " + quoted), []string{"log of " + quoted}}
	})
	if err == nil {
		t.Fatal("the phase did not fail")
	}
	opts.waiting("two", "waits for "+quoted)
	server := httptest.NewServer(StatusHandler(o.Status))
	defer server.Close()
	url := server.URL + "/status"

	want := `"phases":[{"name":"one","state":"failed","seconds":`
	if code, body := ask(t, "GET", url, ""); code != 200 || strings.Contains(body, quoted) || !strings.Contains(body, want) {
		t.Errorf("without a token: %d %s", code, body)
	}
	if code, body := ask(t, "GET", url, "Bearer x"); code != 401 || strings.Contains(body, "state") {
		t.Errorf("before there is a token: %d %s", code, body)
	}

	secrets := filepath.Join(t.TempDir(), "rancher/atoll/secrets.json")
	for range 2 { // it stays the same at every boot
		if err := ownSecrets[0].place(secrets, filepath.Dir(o.Status)); err != nil {
			t.Fatal(err)
		}
	}
	made, err := ReadSecrets(secrets)
	if err != nil {
		t.Fatal(err)
	}
	token := made[statusToken].Value
	for _, bad := range []string{"Bearer " + token[1:], "Bearer " + token + "x", "Bearer", "Bearer ", token, "Basic " + token, "Bearer x" + token} {
		if code, body := ask(t, "GET", url, bad); code != 401 || strings.Contains(body, quoted) {
			t.Errorf("%q: %d %s", bad, code, body)
		}
	}
	code, body := ask(t, "GET", url, "bearer "+token) // the scheme's case is free: RFC 9110, 11.1
	if code != 200 || strings.Count(body, quoted) != 4 {
		t.Errorf("with the token: %d %s", code, body)
	}
	for name, data := range map[string]string{"status": o.Status, "digest": filepath.Join(filepath.Dir(o.Status), tokenDigest), "secrets": secrets} {
		if info, err := os.Stat(data); err != nil || info.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s can be read by all: %v, %v", name, info.Mode(), err)
		}
	}
	digest, err := os.ReadFile(filepath.Join(filepath.Dir(o.Status), tokenDigest))
	if err != nil || strings.Contains(string(digest), token) {
		t.Errorf("what the server reads has the token itself: %s, %v", digest, err)
	}
}

// TestStatusTokenBesideSecrets keeps what is there, and leaves a damaged file alone.
func TestStatusTokenBesideSecrets(t *testing.T) {
	o := testOptions(t)
	path := filepath.Join(t.TempDir(), "secrets.json")
	if err := writeSecrets(path, map[string]Secret{"user-password": {Value: "v"}}); err != nil {
		t.Fatal(err)
	}
	if err := ownSecrets[0].place(path, filepath.Dir(o.Status)); err != nil {
		t.Fatal(err)
	}
	if made, err := ReadSecrets(path); err != nil || made["user-password"].Value != "v" || made[statusToken].Value == "" {
		t.Errorf("%+v, %v", made, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ownSecrets[0].place(path, filepath.Dir(o.Status)); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("damaged secrets: %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "{" {
		t.Errorf("a damaged file was changed: %q, %v", data, err)
	}
}

// countListener counts the connections that were accepted and not closed yet.
type countListener struct {
	net.Listener
	open, most atomic.Int64
}

type countConn struct {
	net.Conn
	l      *countListener
	closed atomic.Bool
}

func (l *countListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if n := l.open.Add(1); n > l.most.Load() {
		l.most.Store(n)
	}
	return &countConn{Conn: c, l: l}, nil
}

func (c *countConn) Close() error {
	if !c.closed.Swap(true) {
		c.l.open.Add(-1)
	}
	return c.Conn.Close()
}

// TestHalfRequests sends thousands of half requests, from one neighbour and from many.
// The server holds no more than its bound of them, none for long, and answers others.
func TestHalfRequests(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "status.json")
	if err := os.WriteFile(path, []byte(`{"state":"ready"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	counter := &countListener{Listener: ln}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- ServeStatus(ctx, counter, path) }()

	half := func(from string, n int) []net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		var conns []net.Conn
		for range n {
			c, err := d.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(c, "GET /status HTTP/1.1\r\nHost: x\r\n") // fails if it is refused already
			conns = append(conns, c)
		}
		return conns
	}
	honest := func(when string) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.99")}}
		client := &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}}
		resp, err := client.Get("http://" + ln.Addr().String() + "/healthz")
		if err != nil {
			t.Errorf("%s: %v", when, err)
			return
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s: %s", when, resp.Status)
		}
	}
	all := half("127.0.0.2", 1000)
	honest("beside one neighbour")
	if got := counter.most.Load(); got > statusPerSource+2 { // one on the way out, and the honest one
		t.Errorf("one neighbour held %d connections", got)
	}
	for i := range 100 {
		all = append(all, half(fmt.Sprintf("127.0.1.%d", i+1), 30)...)
	}
	honest("beside a hundred")
	if got := counter.most.Load(); got > statusConns+2 {
		t.Errorf("all together held %d connections", got)
	}
	for _, c := range all { // the server ends every one
		c.SetReadDeadline(time.Now().Add(2 * requestTimeout))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a half request is held for ever")
		}
		c.Close()
	}
	if got := counter.open.Load(); got != 0 {
		t.Errorf("%d connections are left", got)
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("at its end: %v", err)
	}
}

// TestRegistryHalfRequests checks that the registry gives up on half a header, and on a
// body that never comes, and that neither time-out ends a blob.
func TestRegistryHalfRequests(t *testing.T) {
	t.Parallel()
	server := RegistryServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			select { // longer than any time-out for requests
			case <-time.After(requestTimeout + time.Second):
			case <-req.Context().Done():
				t.Error("a time-out ended a blob")
			}
		}
		io.WriteString(w, "ok") // fails if the client is gone
	}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(ln)
	defer server.Close()
	slow := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + ln.Addr().String() + "/slow")
		if err != nil {
			slow <- err.Error()
			return
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		slow <- fmt.Sprint(string(data), err)
	}()
	for _, text := range []string{"GET /v2/ HTTP/1.1\r\nHost: x\r\n", "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"} {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, text)
		c.SetReadDeadline(time.Now().Add(2 * requestTimeout))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q is held for ever", text)
		}
		c.Close()
	}
	if got := <-slow; got != "ok<nil>" {
		t.Errorf("slow blob: %s", got)
	}
}

// TestPublic makes sure that what strangers are told is still a status.
func TestPublic(t *testing.T) {
	s := bundle.Status{Appliance: "lab", State: bundle.StateFailed, Error: "e", Log: []string{"l"}, Updated: time.Unix(1700000000, 0),
		Phases: []bundle.PhaseStatus{{Name: "one", State: bundle.StateFailed, Message: "m", Seconds: 1.5}}}
	p := public(s)
	if p.Appliance != "lab" || p.State != s.State || !p.Updated.Equal(s.Updated) || p.Error != "" || p.Log != nil ||
		len(p.Phases) != 1 || p.Phases[0] != (bundle.PhaseStatus{Name: "one", State: bundle.StateFailed, Seconds: 1.5}) {
		t.Errorf("%+v", p)
	}
	if s.Phases[0].Message != "m" {
		t.Error("the status itself was changed")
	}
}
