// Package guest is for tests that do something in a booted appliance: it runs
// "atoll boot --forward", and commands in the guest by ssh.
//
// The definition of the appliance needs a user of its own for that, with the public key of
// a [Key]. All of a guest ends with its test.
package guest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// SSHPort is forwarded for every guest, and StatusPort, of the node's status.
const (
	SSHPort    = 22
	StatusPort = 9180
)

// Config is what to boot. Memory and CPUs are those of "atoll boot" where they are 0.
type Config struct {
	Atoll     string // the program
	Image     string
	Overlay   string // may be empty: then nothing survives the guest
	MemoryMiB int
	CPUs      int
	Ports     []int // of the guest, to forward besides SSHPort and StatusPort
	// Addrs are where forwards begin, by the port of the guest, like those of an earlier
	// guest that a browser knows: see [Guest.Addrs]. Default: free ports.
	Addrs map[int]string
	User  string
	Key   *Key
}

// Guest is a machine that runs.
type Guest struct {
	t       testing.TB
	config  Config
	cmd     *exec.Cmd
	console string // file
	ready   chan struct{}
	ended   chan struct{}
	err     error // of atoll, once it has ended

	mu     sync.Mutex
	said   bytes.Buffer // by atoll, to stderr
	addrs  map[int]string
	access access
}

// forwardLine is how "atoll boot" tells of a forward.
var forwardLine = regexp.MustCompile(`^forward +(?:https?://)?([0-9.]+:[0-9]+)/? leads to port ([0-9]+) of the guest$`)

// Boot starts a guest and returns once its forwards are known, long before it is ready: see
// [Guest.Wait]. When ctx ends it loses its power, as it does when the test ends. If that has
// failed, what atoll said and the end of the console go to its log.
func Boot(ctx context.Context, t testing.TB, c Config) *Guest {
	t.Helper()
	g := &Guest{
		t: t, config: c, console: filepath.Join(t.TempDir(), "console.log"),
		ready: make(chan struct{}), ended: make(chan struct{}), addrs: map[int]string{},
	}
	args := []string{"boot", c.Image, "--log", g.console, "--timeout", "24h"} // ctx is the limit
	for flag, value := range map[string]int{"--memory": c.MemoryMiB, "--cpus": c.CPUs} {
		if value > 0 {
			args = append(args, flag, strconv.Itoa(value))
		}
	}
	if c.Overlay != "" {
		args = append(args, "--overlay", c.Overlay)
	}
	ports := append([]int{SSHPort, StatusPort}, c.Ports...)
	for _, p := range ports {
		args = append(args, "--forward", fmt.Sprintf("%s:%d", cmp.Or(c.Addrs[p], "0"), p))
	}
	g.cmd = exec.CommandContext(ctx, c.Atoll, args...)
	g.cmd.Cancel = func() error { g.cut(); return nil }
	g.cmd.WaitDelay = 10 * time.Second
	stdout, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := g.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		t.Fatalf("booting %s: %v", c.Image, err)
	}
	known := make(chan struct{})
	var read sync.WaitGroup
	read.Go(func() { // the only result is that the stack is ready
		if lines := bufio.NewScanner(stdout); lines.Scan() {
			close(g.ready)
		}
	})
	read.Go(func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if g.hear(lines.Text()) == len(ports) && known != nil {
				close(known)
				known = nil
			}
		}
	})
	go func() {
		read.Wait()
		g.err = g.cmd.Wait()
		close(g.ended)
	}()
	t.Cleanup(g.cleanup)
	forwarded := known
	select {
	case <-forwarded:
	case <-g.ended:
		t.Fatalf("booting %s: %v", c.Image, g.err)
	}
	return g
}

// hear keeps a line that atoll has said and returns how many forwards are known.
func (g *Guest) hear(line string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	fmt.Fprintln(&g.said, line)
	if m := forwardLine.FindStringSubmatch(line); m != nil {
		port, _ := strconv.Atoi(m[2]) // digits
		g.addrs[port] = m[1]
	}
	return len(g.addrs)
}

// Wait waits until the stack is ready.
func (g *Guest) Wait(ctx context.Context) error {
	select {
	case <-g.ready:
		return nil
	case <-g.ended:
		return fmt.Errorf("guest ended before it was ready: %w\n%s", g.err, g.Said())
	case <-ctx.Done():
		return fmt.Errorf("waiting for the guest: %w\n%s", ctx.Err(), g.Said())
	}
}

// Addr is the address and port of this machine that lead to the port of the guest.
func (g *Guest) Addr(port int) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	addr, ok := g.addrs[port]
	if !ok {
		panic(fmt.Sprintf("port %d of the guest is not forwarded", port))
	}
	return addr
}

// Addrs are the addresses of all forwards, by the port of the guest.
func (g *Guest) Addrs() map[int]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.addrs)
}

// Said is what "atoll boot" has said so far: a line for each phase, and what one waits for.
func (g *Guest) Said() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.said.String()
}

// Cut is a power cut: QEMU is killed, whatever it does. The overlay can be booted again.
func (g *Guest) Cut() {
	for {
		g.cut()
		select {
		case <-g.ended:
			return
		case <-time.After(100 * time.Millisecond): // it was the QEMU that tries KVM
		}
	}
}

func (g *Guest) cut() {
	// QEMU first: then atoll still cleans up.
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", g.cmd.Process.Pid))
	killed := false
	for _, list := range children {
		pids, _ := os.ReadFile(list) // gone with its thread
		for _, pid := range strings.Fields(string(pids)) {
			if n, err := strconv.Atoi(pid); err == nil && syscall.Kill(n, syscall.SIGKILL) == nil {
				killed = true
			}
		}
	}
	if !killed {
		g.cmd.Process.Kill()
	}
}

// PowerOff ends a guest that is ready, as Ctrl-C does: with an overlay by its power button.
func (g *Guest) PowerOff(ctx context.Context) error {
	if err := g.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-g.ended:
		return g.err
	case <-ctx.Done():
		return fmt.Errorf("powering the guest off: %w", ctx.Err())
	}
}

func (g *Guest) cleanup() {
	g.access.close()
	g.Cut()
	if !g.t.Failed() {
		return
	}
	g.t.Logf("atoll boot said:\n%s", g.Said())
	text, err := os.ReadFile(g.console)
	g.t.Logf("the console's end (%v):\n%s", err, text[max(0, len(text)-4096):])
}

// WaitFor calls check, which says what is still missing, until it returns nil.
func WaitFor(ctx context.Context, check func() error) error {
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// Alone waits until no other test of this machine runs a guest, and keeps others from it
// until the test ends. Packages are tested side by side, and an emulated machine that shares
// two processors with another one is late for its own limits.
func Alone(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "atoll-test-guest.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatalf("waiting for other guests: %v", err)
	}
}
