package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

// usage is what a command took.
type usage struct {
	seconds float64
	// memory is the peak of the largest process, in bytes; no less than [ownPeak].
	memory int64
}

// measure runs a command in a process group of its own, which is killed when ctx ends.
// What it prints is shown only in the error of a failure, which is context.Cause(ctx)
// if that was the reason.
func measure(ctx context.Context, cmd *exec.Cmd) (usage, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return usage{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return usage{}, fmt.Errorf("killing %s: %w", cmd.Path, err)
		}
		<-ended
		return usage{}, context.Cause(ctx)
	}
	if err != nil {
		return usage{}, fmt.Errorf("%w\n%s", err, tail(out.Bytes()))
	}
	u := usage{seconds: time.Since(start).Seconds()}
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.memory = r.Maxrss << 10
	}
	return u, nil
}

// forgetPeak makes this program's peak of memory what it takes now, as little as can be:
// Linux begins a child's count with its parent's peak.
func forgetPeak() error {
	debug.FreeOSMemory()
	return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // proc(5)
}

// ownPeak is the most memory that this program took since its peak was forgotten, in bytes.
func ownPeak() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(status), "\nVmHWM:")
	var kib int64
	if _, err := fmt.Sscan(after, &kib); err != nil {
		return 0, fmt.Errorf("reading own peak of memory: %w", err)
	}
	return kib << 10, nil
}

func tail(b []byte) []byte { return b[max(0, len(b)-2000):] }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// diskUsage is the space that a folder takes on its disk, in bytes. A file with several
// names is counted once.
func diskUsage(dir string) (int64, error) {
	type file struct{ device, inode uint64 }
	seen := map[file]bool{}
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if ok && !seen[file{st.Dev, st.Ino}] {
			seen[file{st.Dev, st.Ino}] = true
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum, err
}
