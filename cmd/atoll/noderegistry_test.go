package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"atoll/ignition/registry"
)

// TestNodeRegistryGC runs in a process of its own, since it becomes another user.
func TestNodeRegistryGC(t *testing.T) {
	const inside = "ATOLL_TEST_GC_DIR"
	if dir := os.Getenv(inside); dir != "" {
		e := &env{stdout: os.Stdout, log: slog.New(slog.DiscardHandler)}
		if err := runNodeRegistryGC(t.Context(), e, dir, registry.CollectOptions{Age: time.Hour}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0) // what else this process wants to tidy up is not its own any more
	}
	dir := filepath.Join(t.TempDir(), "registry")
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := registry.New(ctx, registry.Options{Dir: dir, Quota: 1 << 20, Cluster: nil}); err != nil {
		t.Fatal(err)
	}
	cancel()
	const owner = 54321
	if os.Getuid() == 0 {
		for path := dir; len(path) > len(os.TempDir()); path = filepath.Dir(path) {
			if err := os.Chmod(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, owner, owner))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestNodeRegistryGC$")
	cmd.Env = append(os.Environ(), inside+"="+dir, "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "freed 0 B: 0 manifests, 0 blobs, 0 unfinished uploads\n") {
		t.Errorf("gc: %v\n%s", err, out)
	}
	if os.Getuid() == 0 {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Sys().(*syscall.Stat_t).Uid != owner {
				t.Errorf("%s is not its owner's any more", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestNodeRegistryGCRefuses(t *testing.T) {
	e := &env{stdout: &bytes.Buffer{}}
	err := runNodeRegistryGC(t.Context(), e, t.TempDir(), registry.CollectOptions{Age: time.Second})
	if usage := (usageError{}); !errors.As(err, &usage) {
		t.Errorf("an age that a push may outlast: %v", err)
	}
	err = runNodeRegistryGC(t.Context(), e, filepath.Join(t.TempDir(), "none"), registry.CollectOptions{Age: time.Hour})
	if err == nil || !strings.Contains(strings.Join(hints(err), " "), "sudo atoll node registry gc") {
		t.Errorf("no registry: %v, %v", err, hints(err))
	}
}
