package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"atoll/bundle"
	"atoll/images/disk/qemu"
)

type bootOptions struct {
	overlay string
	memory  int
	cpus    int
	network bool
	forward []string
	timeout time.Duration
	log     string
	junit   string
	verify  string
}

func newBootCommand(e *env) *cobra.Command {
	var o bootOptions
	cmd := &cobra.Command{
		Use:   "boot IMAGE",
		Short: "Boot a disk image under QEMU until its stack is ready",
		Long: `Boot starts a disk image under QEMU with no network card and follows its first
boot. It exits with 0 only when the stack is ready. The image is not changed: what
the guest writes goes to an overlay that is thrown away, unless --overlay names
one to keep and boot again.

With --forward a program on this machine, like a browser, reaches the guest, which
still reaches nothing. Where each forward begins goes to stderr before the guest
starts. A guest that is ready, which stdout then says, runs on until Ctrl-C: with
--overlay it is powered off (a second Ctrl-C pulls the plug), else it is gone.
` + exitStatus,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return runBoot(cmd.Context(), e, o, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.overlay, "overlay", "", "qcow2 file to keep what the guest writes in; one that exists is booted again")
	f.IntVar(&o.memory, "memory", 0, "memory of the guest in MiB (default 6144)")
	f.IntVar(&o.cpus, "cpus", 0, "processors of the guest (default: this machine's, at most 4)")
	f.BoolVar(&o.network, "network", false, "give the guest a network card with a way out through this machine")
	f.StringArrayVar(&o.forward, "forward", nil, "lead `[HOST:]PORT:GUESTPORT` of this machine to a TCP port of the guest, and let it run; HOST is 127.0.0.1 unless given, PORT 0 a free one")
	f.DurationVar(&o.timeout, "timeout", 30*time.Minute, "give up if the stack is not ready after this long")
	f.StringVar(&o.log, "log", "", "file to write the guest's serial console to")
	f.StringVar(&o.verify, "verify", "", "public key that the image must be signed with, or it is not booted")
	f.StringVar(&o.junit, "junit", "", "file to write a JUnit report to, a test case for each phase")
	return cmd
}

func runBoot(ctx context.Context, e *env, o bootOptions, image string) (err error) {
	if o.verify != "" {
		key, err := readPublicKey(o.verify)
		if err != nil {
			return err
		}
		if err := verifyImage(ctx, e, image, key); err != nil {
			return err
		}
	}
	forwards, err := parseForwards(o.forward)
	if err != nil {
		return err
	}
	var console io.Writer
	if o.junit != "" {
		if err := hintOutput(bundle.CheckOutput(o.junit)); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	if o.log != "" {
		f, err := bundle.CreateLog(o.log)
		if err != nil {
			return fmt.Errorf("writing the console's log: %w", hintOutput(err))
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		console = f
	}
	told := newPhaseTeller(e)
	opts := qemu.Options{
		Overlay: o.overlay, MemoryMiB: o.memory, CPUs: o.cpus, Network: o.network,
		Forwards: forwards, OnForward: told.forward, Timeout: o.timeout,
		PowerOff: o.overlay != "", Console: console, OnStatus: told.status, Log: e.log,
	}
	life := ctx
	if len(forwards) > 0 {
		var stop func()
		life, stop = stay(ctx, told, &opts)
		defer stop()
	}
	res, err := qemu.Boot(life, image, &opts)
	if ctx.Err() != nil && err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprint(e.stderr, oneLineEach(err)) // or only that it was interrupted would be told
	}
	if o.junit != "" {
		err = errors.Join(err, bundle.WriteFile(o.junit, func(f *os.File) error { return qemu.WriteJUnit(f, image, res, err) }))
	}
	if err != nil {
		return hintForward(hintOutput(err))
	}
	if len(forwards) > 0 {
		return nil
	}
	return told.ready(res)
}

// phaseTeller prints a line for each phase of the guest that ends.
type phaseTeller struct {
	e     *env
	start time.Time
	told  map[string]bool
	last  string    // what a phase was last said to wait for
	when  time.Time // and when
}

func newPhaseTeller(e *env) *phaseTeller {
	return &phaseTeller{e: e, start: time.Now(), told: map[string]bool{}}
}

func (t *phaseTeller) status(s bundle.Status) {
	t.once("boot", "up after %s", time.Since(t.start).Round(time.Second))
	for _, p := range s.Phases {
		switch p.State {
		case bundle.StateReady:
			t.once(p.Name, "ready in %.0fs", p.Seconds)
		case bundle.StateRunning:
			t.waits(p)
		case bundle.StateFailed:
			t.once(p.Name, "failed: %s", p.Message)
		}
	}
}

// waits says now and then what a long phase waits for.
func (t *phaseTeller) waits(p bundle.PhaseStatus) {
	if p.Message == "" || p.Message == t.last || time.Since(t.when) < plainEvery {
		return
	}
	t.last, t.when = p.Message, time.Now()
	t.e.say("%-12s waits for: %s", p.Name, p.Message)
}

func (t *phaseTeller) once(phase, format string, args ...any) {
	if t.told[phase] {
		return
	}
	t.told[phase] = true
	t.e.say("%-12s %s", phase, plainf(format, args...))
}
