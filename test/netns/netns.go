// Package netns is for tests that need a network of their own: namespaces of the Linux
// kernel (network_namespaces(7)), in which a test runs programs and opens sockets.
package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

var made atomic.Int64

// Namespace is a network namespace; it has lo, which is up, and nothing else at first.
type Namespace struct{ Name string }

// New makes a namespace that is gone when the test ends. The error says why that is
// not possible here, as for who is not root.
func New(t testing.TB) (Namespace, error) {
	ns := Namespace{fmt.Sprintf("atoll-test-%d-%d", os.Getpid(), made.Add(1))}
	if os.Getuid() != 0 {
		return ns, errors.New("only root can make a network namespace")
	}
	if out, err := exec.Command("ip", "netns", "add", ns.Name).CombinedOutput(); err != nil {
		return ns, fmt.Errorf("making network namespace: %w\n%s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", ns.Name).Run() })
	return ns, ns.Run("ip", "link", "set", "lo", "up")
}

// Command is a program in the namespace.
func (ns Namespace) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", ns.Name, name}, args...)...)
}

// Run runs a program in the namespace; what it printed is in the error.
func (ns Namespace) Run(name string, args ...string) error {
	out, err := ns.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// Inside calls f on a thread of the namespace: sockets that it opens itself, not in
// other goroutines, belong there and stay there.
func (ns Namespace) Inside(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := unix.Open("/run/netns/"+ns.Name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Setns(fd, unix.CLONE_NEWNET), unix.Close(fd))
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}
