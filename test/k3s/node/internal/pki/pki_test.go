package pki

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestEnsure(t *testing.T) {
	dir, now := t.TempDir(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	load := func() *CA {
		t.Helper()
		ca, err := LoadCA(filepath.Join(dir, "ca"), "test-ca", now)
		if err != nil {
			t.Fatal(err)
		}
		return ca
	}
	leaf := Leaf{File: filepath.Join(dir, "leaf"), Name: "leaf", Hosts: []string{"localhost", "127.0.0.1"}}
	ensure := func(ca *CA, now time.Time) []byte {
		t.Helper()
		if err := ca.Ensure(leaf, now); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(leaf.File + ".crt")
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	first := ensure(load(), now)
	if !bytes.Equal(first, ensure(load(), now.Add(24*time.Hour))) {
		t.Error("a good certificate was made again")
	}
	renewed := ensure(load(), now.Add(leafLife-renewWhen+time.Hour))
	if bytes.Equal(first, renewed) {
		t.Error("a certificate near its end was kept")
	}
	leaf.Hosts = append(leaf.Hosts, "203.0.113.254")
	if bytes.Equal(renewed, ensure(load(), now.Add(leafLife-renewWhen+time.Hour))) {
		t.Error("a certificate that lacks an address was kept")
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadCA(filepath.Join(dir, "ca"), "test-ca", now); err == nil {
		t.Error("a CA without its key was replaced")
	}
}
