package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// setting is how the registry is reached, and what atoll shall reach there.
type setting struct {
	title              string
	proxy              proxy
	timesPeer, atFloor float64
}

// mirror measures atoll and its peers at getting a set of images out of a registry.
func mirror(ctx context.Context, dir, atoll, registry string, runs int, size int64) error {
	u, err := url.Parse(registry)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%q is not a registry's URL like http://127.0.0.1:5001", registry)
	}
	tools, home := filepath.Join(dir, "tools"), filepath.Join(dir, "home")
	if err := errors.Join(os.Mkdir(tools, 0o755), os.Mkdir(home, 0o755)); err != nil {
		return err
	}
	if err := install(ctx, tools, cranePackage, regctlPackage); err != nil {
		return err
	}
	set, err := newImageSet(ctx, size)
	if err != nil {
		return err
	}
	fmt.Printf("Mirroring %d images: %d distinct blobs of %s; shared layers counted each time, %s\n", len(set.images), len(set.blobs), megabytes(set.bytes), megabytes(set.pulled))
	if err := set.push(ctx, u); err != nil {
		return err
	}
	definition, err := writeDefinition(dir, set.names)
	if err != nil {
		return err
	}
	for i, s := range []*setting{
		{title: "Loopback", timesPeer: 2.5, atFloor: 1.6},
		{title: "A proxy that adds 20 ms to each connect and each request, 50 MB/s per connection", timesPeer: 3, atFloor: 1.15,
			proxy: proxy{latency: 20 * time.Millisecond, rate: 50e6}},
	} {
		pullers, err := newPullers(tools, atoll, definition, set)
		if err != nil {
			return err
		}
		if i == 0 {
			explain(pullers)
		}
		s.proxy.upstream = u.Host
		c := &contest{setting: s, set: set, pullers: pullers, home: home, out: filepath.Join(dir, "out")}
		c.lock = func(registry, cache string) *exec.Cmd {
			return atollCommand(atoll, "lock", definition, registry, cache)
		}
		if err := c.run(ctx, runs); err != nil {
			return err
		}
		if err := c.report(os.Stdout); err != nil {
			return err
		}
	}
	return nil
}

// contest is all runs in one setting.
type contest struct {
	*setting
	set     *imageSet
	pullers []*puller
	lock    func(registry, cache string) *exec.Cmd // atoll's, which mirror needs
	home    string                                 // of the commands: no login, no cache of others
	out     string                                 // where they pull to, removed after each

	lockSeconds []float64
	lockWire    int64
	unseen      int64 // peaks of memory below are not seen, bytes
}

func (c *contest) run(ctx context.Context, runs int) error {
	if err := c.proxy.listen(); err != nil {
		return err
	}
	defer c.proxy.close()
	for range runs {
		u, wire, err := c.measure(ctx, c.lock(c.proxy.address(), c.out))
		if err := errors.Join(err, os.RemoveAll(c.out)); err != nil {
			return fmt.Errorf("atoll lock: %w", err)
		}
		c.lockSeconds, c.lockWire = append(c.lockSeconds, u.seconds), wire
		for _, p := range c.pullers {
			if err := c.turn(ctx, p); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return nil
}

// measure runs a command, with nothing left to be written by those before it, and gives
// the bytes on the wire too.
func (c *contest) measure(ctx context.Context, cmd *exec.Cmd) (usage, int64, error) {
	cmd.Env = append(os.Environ(), "HOME="+c.home)
	if err := cmp.Or(os.MkdirAll(c.out, 0o755), forgetPeak()); err != nil {
		return usage{}, 0, err
	}
	peak, err := ownPeak()
	if err != nil {
		return usage{}, 0, err
	}
	c.unseen = max(c.unseen, peak)
	syscall.Sync()
	u, err := measure(ctx, cmd)
	wire, countErr := c.proxy.count(ctx)
	return u, wire, cmp.Or(err, countErr)
}

// turn is one turn of a puller: into an empty folder, again, and with a kill at half.
func (c *contest) turn(ctx context.Context, p *puller) (err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(c.out)) }()
	pull := func() (float64, int64, error) {
		u, wire, err := c.measure(ctx, p.command(c.proxy.address(), c.out))
		p.memory = max(p.memory, u.memory)
		return u.seconds, wire, err
	}
	seconds, wire, err := pull()
	if err != nil {
		return err
	}
	p.coldSeconds, p.coldWire = append(p.coldSeconds, seconds), wire
	if p.disk, err = diskUsage(c.out); err != nil {
		return err
	}
	if p.kind == floor || p.kind == shared {
		return c.set.check(c.out)
	}
	if seconds, p.warmWire, err = pull(); err != nil {
		return fmt.Errorf("again: %w", err)
	}
	p.warmSeconds = append(p.warmSeconds, seconds)
	if err := os.RemoveAll(c.out); err != nil {
		return err
	}
	killed, err := c.killAtHalf(ctx, p.command(c.proxy.address(), c.out))
	if err != nil {
		return err
	}
	if seconds, wire, err = pull(); err != nil {
		return fmt.Errorf("after a kill: %w", err)
	}
	p.resumedSeconds, p.resumedWire = append(p.resumedSeconds, seconds), killed+wire
	return c.set.check(c.out)
}

var errHalf = errors.New("half of the bytes came")

// killAtHalf runs a command until half of the set's bytes were on the wire, and gives
// how many there were at its end.
func (c *contest) killAtHalf(ctx context.Context, cmd *exec.Cmd) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		for ctx.Err() == nil {
			if c.proxy.wire.Load() >= c.set.bytes/2 {
				cancel(errHalf)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, wire, err := c.measure(ctx, cmd)
	switch {
	case err == nil:
		return 0, errors.New("ended before it could be killed")
	case !errors.Is(err, errHalf):
		return 0, err
	}
	// ctx has ended, and with it the counting.
	rest, err := c.proxy.count(context.WithoutCancel(ctx))
	return wire + rest, err
}

// check says whether a folder has all blobs of the set, whole, in files of their names.
func (s *imageSet) check(dir string) error {
	paths := map[string]string{}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		// Atoll's store has records of the same name beside its blobs.
		if err == nil && d.Type().IsRegular() && filepath.Base(filepath.Dir(path)) != "verified" {
			paths[d.Name()] = path
		}
		return err
	}); err != nil {
		return err
	}
	for _, b := range s.blobs {
		f, err := os.Open(paths[b.digest.Hex])
		if err != nil {
			return fmt.Errorf("blob %s is missing: %w", b.digest, err)
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return err
		}
		if got := sum(h); got != b.digest {
			return fmt.Errorf("blob %s is corrupt: it is %s", b.digest, got)
		}
	}
	return nil
}
