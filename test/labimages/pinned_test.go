package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"testing"
	"time"
)

func TestPinnedDigest(t *testing.T) {
	p, err := pinned()
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != pinnedDigest {
		t.Errorf("pinned image has digest %s, want the constant %s, which manifests name", got, pinnedDigest)
	}
}

// TestPinnedInManifests holds the lab stack's manifests to the digest that is pushed.
func TestPinnedInManifests(t *testing.T) {
	pin := regexp.MustCompile(`quay\.io/atoll-lab/pinned@(sha256:[0-9a-f]+)`)
	found := 0
	err := filepath.WalkDir("../../bundle/stack/lab", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, m := range pin.FindAllSubmatch(data, -1) {
			found++
			if string(m[1]) != pinnedDigest {
				t.Errorf("%s pins %s, want %s", path, m[1], pinnedDigest)
			}
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) || err == nil && found == 0 {
		t.Skip("no manifest of the lab stack names the pinned image")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPauseProgram(t *testing.T) {
	for _, arch := range archs {
		f, err := elf.NewFile(bytes.NewReader(pauseProgram(arch)))
		if err != nil {
			t.Fatalf("%s: %v", arch, err)
		}
		if len(f.Progs) != 1 || f.Entry < f.Progs[0].Vaddr || f.Entry >= f.Progs[0].Vaddr+f.Progs[0].Filesz {
			t.Errorf("%s: entry point is outside of the one segment", arch)
		}
	}
	if pause[runtime.GOARCH].code == nil {
		t.Skip("no program for " + runtime.GOARCH)
	}
	path := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(path, pauseProgram(runtime.GOARCH), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("program ended: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-ended
	if cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(); cpu > 50*time.Millisecond {
		t.Errorf("program used %v of CPU: it spins", cpu)
	}
}
