package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"atoll/bundle"
)

// File descriptors of the guest's QEMU, in the order of its ExtraFiles.
const (
	statusFD = 3
	qmpFD    = 4
)

// machineArgs are QEMU's arguments for all but the accelerator. Paths go in as JSON:
// in QEMU's own syntax a comma would end them.
func (t *tools) machineArgs(disk, vars string, o Options) []string {
	return append(t.firmwareArgs(vars),
		"-m", strconv.Itoa(o.MemoryMiB), "-smp", strconv.Itoa(o.CPUs),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", nic(o.Network, o.Forwards),
		"-blockdev", blockdev("disk", "qcow2", disk, map[string]any{
			"discard": "unmap",
			// Flushes matter only where the overlay outlives the guest.
			"cache": map[string]any{"no-flush": o.Overlay == ""},
		}),
		"-device", "virtio-blk-pci,drive=disk,bootindex=0",
		"-device", "virtio-rng-pci",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=status,fd=%d", statusFD),
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=status,name="+bundle.StatusPort,
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", qmpFD), "-mon", "chardev=qmp,mode=control",
	)
}

// firmwareArgs are the machine and its UEFI firmware; no variables if vars is empty.
func (t *tools) firmwareArgs(vars string) []string {
	args := []string{"-blockdev", blockdev("code", "raw", t.code, map[string]any{"read-only": true})}
	machine := "q35,pflash0=code"
	if vars != "" {
		args = append(args, "-blockdev", blockdev("vars", "raw", vars, nil))
		machine += ",pflash1=vars"
	}
	return append(args, "-machine", machine)
}

func blockdev(name, driver, path string, more map[string]any) string {
	spec := map[string]any{"node-name": name, "driver": driver, "file": map[string]any{"driver": "file", "filename": path}}
	for k, v := range more {
		spec[k] = v
	}
	data, err := json.Marshal(spec)
	if err != nil {
		panic(err) // a map of strings and booleans always marshals
	}
	return string(data)
}

// machine is a running guest.
type machine struct {
	cmd     *exec.Cmd
	kill    context.CancelFunc
	started time.Time
	status  net.Conn
	qmp     *monitor
	console *console
	stderr  *console
	exited  chan error // gets QEMU's end, once
}

// start starts QEMU. Close must be called.
func start(ctx context.Context, qemu string, args []string, dir string, o Options) (*machine, error) {
	ours, theirs, err := socketpairs(2)
	for _, f := range theirs {
		defer f.Close()
	}
	if err != nil {
		closeAll(ours)
		return nil, err
	}
	ctx, kill := context.WithCancel(ctx)
	m := &machine{
		kill: kill, console: newConsole(o.Console, consoleTrouble), stderr: newConsole(nil, nil),
		status: ours[0], qmp: newMonitor(ours[1], o.Log), exited: make(chan error, 1), started: time.Now(),
	}
	m.cmd = exec.CommandContext(ctx, qemu, args...)
	m.cmd.Dir = dir // a core file of a QEMU that crashes is thrown away too
	m.cmd.Stdout, m.cmd.Stderr = m.console, m.stderr
	m.cmd.ExtraFiles = theirs
	// In a process group of its own Ctrl-C in the terminal does not end it: we do.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	m.cmd.WaitDelay = 5 * time.Second
	if err := m.cmd.Start(); err != nil {
		kill()
		closeAll(ours)
		return nil, fmt.Errorf("starting QEMU: %w", err)
	}
	go m.qmp.run()
	go func() { m.exited <- m.cmd.Wait() }()
	return m, nil
}

// close ends the guest, whatever it does, and waits for its QEMU.
func (m *machine) close() error {
	m.kill()
	if m.exited != nil {
		<-m.exited
	}
	m.status.Close()
	return m.qmp.close()
}

// end ends a guest that is ready: by its power button, or by pulling the plug.
func (m *machine) end(ctx context.Context, powerOff bool) error {
	if m.exited == nil { // it ended by itself
		return nil
	}
	limit, command := 10*time.Second, "quit"
	if powerOff {
		limit, command = 10*time.Minute, "system_powerdown" // slow without KVM
	}
	if m.qmp.execute(command) != nil { // QEMU is going already
		limit = 10 * time.Second
	}
	select {
	case err := <-m.exited:
		m.exited = nil
		return m.endedReady(err)
	case <-time.After(limit):
		return &GuestError{Reason: fmt.Sprintf("guest did not power off in %v", limit), Log: m.console.tail()}
	case <-ctx.Done():
		return fmt.Errorf("powering off: %w", ctx.Err())
	}
}

// socketpairs makes n connected pairs of sockets: our ends, and QEMU's.
func socketpairs(n int) (ours []net.Conn, theirs []*os.File, err error) {
	for range n {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return ours, theirs, fmt.Errorf("making sockets: %w", err)
		}
		theirs = append(theirs, os.NewFile(uintptr(fds[1]), "guest"))
		f := os.NewFile(uintptr(fds[0]), "host")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			return ours, theirs, fmt.Errorf("making sockets: %w", err)
		}
		ours = append(ours, conn)
	}
	return ours, theirs, nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}
