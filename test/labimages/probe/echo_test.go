package main

import (
	"net/http"
	"testing"
)

func TestEcho(t *testing.T) {
	addr := freeAddr(t)
	go func() {
		if err := echo(t.Context(), addr); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	}()
	if got := await(t, addr, http.StatusOK); got != http.StatusOK {
		t.Fatalf("it answers %d", got)
	}
	if err := get(t.Context(), "http://"+addr+"/a/b"); err != nil {
		t.Errorf("asking it: %v", err)
	}
	if err := get(t.Context(), "http://"+freeAddr(t)+"/"); err == nil {
		t.Error("nobody is there, and get returned no error")
	}
}
