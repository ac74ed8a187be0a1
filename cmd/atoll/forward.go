package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"atoll/images/disk/qemu"
)

// parseForwards reads what --forward names. Two may lead to one port of the guest, but not
// begin at one of this machine.
func parseForwards(texts []string) ([]qemu.Forward, error) {
	var forwards []qemu.Forward
	seen := map[string]bool{}
	for _, text := range texts {
		f, err := qemu.ParseForward(text)
		if err != nil {
			return nil, usageError{withHint(fmt.Errorf("--forward %w", err), "--forward 8443:443 leads https://127.0.0.1:8443 to the guest's port 443")}
		}
		host := f.Host.String()
		if seen[host] && f.Host.Port() != 0 {
			return nil, usageError{fmt.Errorf("--forward %s: %s is forwarded already", f, host)}
		}
		seen[host] = true
		forwards = append(forwards, f)
	}
	return forwards, nil
}

// hintForward says what to do about a port that cannot be taken.
func hintForward(err error) error {
	var p *qemu.PortError
	if !errors.As(err, &p) {
		return err
	}
	switch f := p.Forward; {
	case errors.Is(p.Err, syscall.EADDRINUSE):
		return withHint(err, "another program has port %d; name another, or 0 for a free one: --forward %s:0:%d", f.Host.Port(), f.Host.Addr(), f.GuestPort)
	case errors.Is(p.Err, syscall.EACCES):
		return withHint(err, "ports below 1024 are root's; name another: --forward %s:%d:%d", f.Host.Addr(), 8000+f.GuestPort%1000, f.GuestPort)
	case errors.Is(p.Err, syscall.EADDRNOTAVAIL):
		return withHint(err, "%s is no address of this machine; without one it is 127.0.0.1", f.Host.Addr())
	}
	return err
}

// stay lets a guest run on once it is ready, until ctx is done: by the first Ctrl-C, or
// whatever ends this program. The context it returns is done, so that the guest is cut off,
// by that before the guest is ready, and by the second afterwards.
func stay(ctx context.Context, told *phaseTeller, o *qemu.Options) (context.Context, func()) {
	life, kill := context.WithCancel(context.WithoutCancel(ctx))
	until, ready := make(chan struct{}), make(chan struct{})
	o.Until = until
	o.OnReady = func(res *qemu.Result) error {
		close(ready)
		if err := told.ready(res); err != nil {
			return err
		}
		told.e.say("runs until Ctrl-C")
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-ready:
		default:
			kill()
			return
		}
		second, stop := signal.NotifyContext(life, os.Interrupt, syscall.SIGTERM)
		defer stop()
		if o.PowerOff {
			told.e.say("powering off; a second Ctrl-C pulls the plug")
		}
		close(until)
		<-second.Done()
		kill()
	})
	return life, func() { stop(); kill() }
}

// forward tells where a forward begins, which a port of 0 does not say.
func (t *phaseTeller) forward(f qemu.Forward) {
	where := f.Host.String()
	switch f.GuestPort {
	case 80:
		where = "http://" + where + "/"
	case 443:
		where = "https://" + where + "/"
	}
	t.e.say("%-12s %s leads to port %d of the guest", "forward", where, f.GuestPort)
}

// ready prints the result of a boot.
func (t *phaseTeller) ready(res *qemu.Result) error {
	return t.e.print("%s is ready after %s (%s)", res.Status.Appliance, res.Duration.Round(time.Second), res.Accel)
}
