package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWriteRead(t *testing.T) {
	dir := t.TempDir()
	for range 2 { // the second finds the file of the first
		if err := writeRead(dir); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "atoll-probe")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[100] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeRead(dir); err == nil {
		t.Error("a volume that lost a bit is taken")
	}
}

func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	release := make(chan struct{})
	go func() { ended <- serve(ctx, addr, http.NewServeMux(), func() error { <-release; return nil }) }()
	if got := await(t, addr, http.StatusServiceUnavailable); got != http.StatusServiceUnavailable {
		t.Errorf("before its work is done it answers %d", got)
	}
	close(release)
	if got := await(t, addr, http.StatusOK); got != http.StatusOK {
		t.Errorf("after its work is done it answers %d", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("asked to end: %v", err)
	}
}

// await asks until the status is the wanted one, for 5 s at most, and gives the last.
func await(t *testing.T, addr string, want int) (got int) {
	t.Helper()
	for range 100 {
		if resp, err := http.Get("http://" + addr + "/readyz"); err == nil {
			resp.Body.Close()
			if got = resp.StatusCode; got == want {
				return got
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return got
}
