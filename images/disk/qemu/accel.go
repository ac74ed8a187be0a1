package qemu

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// probeTime is how long a guest under KVM may take for its first sign of life. The
// firmware needs about a second.
const probeTime = 10 * time.Second

// accelArgs choose the accelerator and the CPU. Under TCG the CPU lacks erms and fsrm:
// with them a guest was seen to hang in clear_page_erms. Without la57 page tables have
// four levels, not five, which makes every miss of the TLB cheaper.
func accelArgs(accel string) []string {
	if accel == "kvm" {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max,erms=off,fsrm=off,la57=off"}
}

// accel tells which accelerator works: "kvm" or "tcg". That /dev/kvm opens, and even
// that it makes a virtual CPU, does not mean that a guest runs: on hosts that are
// guests themselves QEMU aborts or the virtual CPU stops. So the firmware is started,
// and what counts is that it writes to its serial port.
func (t *tools) accel(ctx context.Context, dir string, log *slog.Logger) (string, error) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		log.Info("running without KVM, slowly", "why", err)
		return "tcg", nil
	}
	f.Close()
	probe, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	args := append(accelArgs("kvm"), t.firmwareArgs("")...)
	cmd := exec.CommandContext(probe, t.qemu, append(args,
		"-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot", "-serial", "stdio")...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	alive := &firstByte{found: cancel}
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = alive, &stderr
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case alive.seen:
		return "kvm", nil
	}
	why := string(bytes.TrimSpace(stderr.Bytes()))
	if errors.Is(probe.Err(), context.DeadlineExceeded) {
		why = "the firmware gave no sign of life"
	}
	log.Info("running without KVM, slowly: /dev/kvm is there but cannot run a guest", "err", err, "why", why)
	return "tcg", nil
}

// firstByte is a writer that calls found when it gets anything. It is read only after
// the program that writes to it has ended.
type firstByte struct {
	found func()
	seen  bool
}

func (w *firstByte) Write(p []byte) (int, error) {
	if len(p) > 0 {
		w.seen = true
		w.found()
	}
	return len(p), nil
}
