package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestStandInsOfOwn: a name of one of the lab's own images stays that image's.
func TestStandInsOfOwn(t *testing.T) {
	list := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(list, []byte("ghcr.io/atoll-lab/probe:1.0\nexample.org/pinned@"+pinnedDigest+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var b builder
	more, err := b.more(t.Context(), extra{standIns: list})
	if err != nil {
		t.Fatal(err)
	}
	if len(more) != 1 || more[0].names[0] != "example.org/pinned@"+pinnedDigest {
		t.Errorf("stand-ins for %v", more)
	}
}
