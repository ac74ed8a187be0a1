package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestScan(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	one := fmt.Sprint(port)
	if err := scan(t.Context(), "127.0.0.1", one, one); err != nil {
		t.Error(err)
	}
	if err := scan(t.Context(), "127.0.0.1", one, ""); err == nil || !strings.Contains(err.Error(), "["+one+"], want []") {
		t.Errorf("a port that is open and must not be: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := scan(ctx, "127.0.0.1", one, one); err == nil {
		t.Error("a scan that was cut off is well")
	}
}

func TestParsePorts(t *testing.T) {
	if got, err := parsePorts("8000-8002,22,22"); err != nil || !slices.Equal(got, []int{22, 8000, 8001, 8002}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"x", "0", "65536", "3-2", "1-", "-1"} {
		if got, err := parsePorts(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, got)
		}
	}
}

func TestGate(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- gate(ctx, addr) }()
	if got := await(t, addr, http.StatusServiceUnavailable); got != http.StatusServiceUnavailable {
		t.Errorf("before it is opened it answers %d", got)
	}
	resp, err := http.Post("http://"+addr+"/open", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := await(t, addr, http.StatusOK); got != http.StatusOK {
		t.Errorf("after it was opened it answers %d", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("asked to end: %v", err)
	}
}
