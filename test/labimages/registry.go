package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// push builds the lab's images and pushes them to the registry at the URL.
func push(ctx context.Context, registry string, more extra) error {
	u, err := url.Parse(registry)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%q is not a registry's URL like http://127.0.0.1:5001", registry)
	}
	var opts []name.Option
	if u.Scheme == "http" {
		opts = append(opts, name.Insecure)
	}
	all, err := buildAll(ctx, more)
	if err != nil {
		return err
	}
	pusher, err := remote.NewPusher(remote.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("pushing: %w", err)
	}
	for _, b := range all {
		for _, n := range b.names {
			ref, err := name.ParseReference(u.Host+"/"+n, opts...)
			if err != nil {
				return fmt.Errorf("pushing %s: %w", n, err)
			}
			if err := pusher.Push(ctx, ref, b.what); err != nil {
				return fmt.Errorf("pushing %s: %w", n, err)
			}
		}
	}
	return nil
}

func digestOf(t remote.Taggable) (v1.Hash, error) {
	raw, err := t.RawManifest()
	if err != nil {
		return v1.Hash{}, err
	}
	h, _, err := v1.SHA256(bytes.NewReader(raw))
	return h, err
}

// serve runs a registry for as long as a command needs it, with the lab's images in it.
func serve(ctx context.Context, addr, dir string, more extra, command []string) error {
	r, err := startRegistry(ctx, addr, dir)
	if err != nil {
		return err
	}
	defer r.stop()
	if err := push(ctx, r.url, more); err != nil {
		return err
	}
	args := make([]string, len(command))
	for i, a := range command {
		args[i] = strings.ReplaceAll(a, "{registry}", r.url)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The command may have work to tidy up: ask, and wait for it.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd.Run()
}

// registry is a running docker-registry.
type registry struct {
	url  string
	cmd  *exec.Cmd
	gone chan error // gets the end of the process, once
	log  string
}

// config of docker-registry; the file system driver and nothing else.
const config = `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
http: {addr: %q}
`

// startRegistry starts Debian's docker-registry on a loopback address and waits
// until it answers. It dies with this process.
func startRegistry(ctx context.Context, addr, dir string) (*registry, error) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		return nil, fmt.Errorf("starting registry: %w (apt-get install docker-registry)", err)
	}
	if addr, err = freeAddress(addr); err != nil {
		return nil, fmt.Errorf("starting registry: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("starting registry: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("starting registry: %w", err)
	}
	path := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(path, fmt.Appendf(nil, config, filepath.Join(dir, "data"), addr), 0o644); err != nil {
		return nil, fmt.Errorf("starting registry: %w", err)
	}
	r := &registry{url: "http://" + addr, gone: make(chan error, 1), log: filepath.Join(dir, "registry.log")}
	log, err := os.Create(r.log)
	if err != nil {
		return nil, fmt.Errorf("starting registry: %w", err)
	}
	defer log.Close()
	r.cmd = exec.Command(program, "serve", path)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	// A process group of its own: Ctrl-C in a terminal is for COMMAND, which still needs the registry.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting registry: %w", err)
	}
	go func() { r.gone <- r.cmd.Wait() }()
	if err := r.wait(ctx); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

// freeAddress checks that the address is on loopback and gives port 0 a number.
func freeAddress(addr string) (string, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	defer l.Close()
	if !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
		return "", fmt.Errorf("%s is not a loopback address", addr)
	}
	return l.Addr().String(), nil
}

// wait returns once the registry answers.
func (r *registry) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/v2/", nil)
		if err != nil {
			return fmt.Errorf("starting registry: %w", err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-r.gone:
			r.gone <- err
			return fmt.Errorf("starting registry: it ended (%w); its log is %s", errors.Join(err), r.log)
		case <-ctx.Done():
			return fmt.Errorf("waiting for registry: %w; its log is %s", ctx.Err(), r.log)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends the registry and waits for it.
func (r *registry) stop() {
	// It may have ended by itself; then there is nothing to do.
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.gone:
	case <-time.After(5 * time.Second):
		_ = r.cmd.Process.Kill()
		<-r.gone
	}
}
