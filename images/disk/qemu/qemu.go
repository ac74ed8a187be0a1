// Package qemu boots a disk image under QEMU and follows the node's status until
// the stack is ready or the guest has failed.
//
// The image itself is never written to: the guest writes to an overlay. Unless asked
// for, the guest has no network card, or one that only takes connections. It is not
// trusted: what it sends is bounded and stripped of control characters.
//
// Matchable errors: [disk.MissingToolError], [PortError], [GuestError] and those of the
// context.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"time"

	"atoll/bundle"
)

// Options are how to boot; nil and zero fields mean the defaults.
type Options struct {
	// Overlay is the qcow2 file that the guest writes to. One that exists is booted
	// again, with what it holds. Default: one that is thrown away.
	Overlay string
	// DiskSize in bytes as the guest sees it; the overlay takes only what is written.
	// Default: the image's size and 16 GiB more.
	DiskSize int64
	// MemoryMiB of the guest. Default: 6144.
	MemoryMiB int
	// CPUs of the guest. Default: those of the machine, at most 4.
	CPUs int
	// Network gives the guest a network card with a way out through the host.
	Network bool
	// Forwards lead connections from the host to the guest, which gets a network card for
	// them; without Network it answers these and can reach nothing.
	Forwards []Forward
	// OnForward is called with each of them before QEMU starts, with the port that was
	// taken if it was 0.
	OnForward func(Forward)
	// Timeout is how long the guest may take until it is ready. Default: for ever.
	Timeout time.Duration
	// PowerOff shuts the guest down cleanly at the end; else it is cut off, which suits an
	// overlay that is thrown away.
	PowerOff bool
	// OnReady is called when the stack is ready. An error ends the guest.
	OnReady func(*Result) error
	// Until is closed when a guest that is ready is to end. Default: it ends as soon as it
	// is ready.
	Until <-chan struct{}
	// Console gets what the guest writes to its serial console, raw.
	Console io.Writer
	// OnStatus is called with every status that differs from the one before.
	OnStatus func(bundle.Status)
	Log      *slog.Logger
}

// Result is what came of a boot.
type Result struct {
	// Accel is "kvm" or "tcg".
	Accel string
	// Status is the last that the node told; its State is empty if it told none.
	Status bundle.Status
	// Start is how long firmware and operating system took until the first status.
	Start time.Duration
	// Duration is the wall time from power-on until the stack was ready or failed.
	Duration time.Duration
	// Console is the end of the serial console's text.
	Console []string
}

const (
	defaultMemoryMiB = 6144
	defaultGrowth    = 16 << 30
	maxDefaultCPUs   = 4
)

func (o *Options) withDefaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	if d.MemoryMiB == 0 {
		d.MemoryMiB = defaultMemoryMiB
	}
	if d.CPUs == 0 {
		d.CPUs = min(maxDefaultCPUs, runtime.NumCPU())
	}
	if d.Console == nil {
		d.Console = io.Discard
	}
	if d.OnStatus == nil {
		d.OnStatus = func(bundle.Status) {}
	}
	if d.OnForward == nil {
		d.OnForward = func(Forward) {}
	}
	if d.OnReady == nil {
		d.OnReady = func(*Result) error { return nil }
	}
	if d.Until == nil {
		now := make(chan struct{})
		close(now)
		d.Until = now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return d
}

// Boot boots the image, raw or qcow2, and returns when the stack is ready and
// [Options.Until] is closed or the guest has powered off, when the guest has failed or
// ended before that ([GuestError]), or when ctx is done, at once. The result is there as
// soon as the guest was started, also with an error.
func Boot(ctx context.Context, image string, o *Options) (*Result, error) {
	opts := o.withDefaults()
	// A QEMU is killed when the thread that started it ends, however that ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t, err := findTools()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "atoll-boot-")
	if err != nil {
		return nil, fmt.Errorf("booting %s: %w", image, err)
	}
	defer os.RemoveAll(dir)
	held, forwards, err := listen(opts.Forwards)
	if err != nil {
		return nil, fmt.Errorf("booting %s: %w", image, err)
	}
	defer held.release()
	opts.Forwards = forwards
	disk, err := t.overlay(ctx, image, dir, opts)
	if err != nil {
		return nil, fmt.Errorf("booting %s: %w", image, err)
	}
	vars, err := t.copyVars(dir)
	if err != nil {
		return nil, fmt.Errorf("booting %s: %w", image, err)
	}
	accel, err := t.accel(ctx, dir, opts.Log)
	if err != nil {
		return nil, fmt.Errorf("booting %s: %w", image, err)
	}
	args := append(accelArgs(accel), t.machineArgs(disk, vars, opts)...)
	opts.Log.Debug("starting QEMU", "program", t.qemu, "args", args)
	for _, f := range forwards {
		opts.OnForward(f)
	}
	held.release()
	m, err := start(ctx, t.qemu, args, dir, opts)
	if err != nil {
		return nil, fmt.Errorf("booting %s: %w", image, err)
	}
	res := &Result{Accel: accel}
	err = m.follow(ctx, res, opts)
	if res.Duration == 0 {
		res.Duration = time.Since(m.started)
	}
	if err == nil {
		err = m.end(ctx, opts.PowerOff)
	}
	err = errors.Join(err, m.close())
	res.Console = m.console.tail()
	return res, err
}
