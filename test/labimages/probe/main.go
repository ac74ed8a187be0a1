// Probe is the lab's all-purpose container: it serves, it writes and reads a
// volume, it says hello, it waits for a visitor, it looks for open ports, it pushes itself to
// a registry, it answers and asks, it watches the wire.
//
//	probe serve [-addr :8080]
//	probe write-read [-addr :8080] DIR
//	probe hello
//	probe gate [-addr :8080]
//	probe scan [-tcp PORTS] [-want PORTS] HOST
//	probe push [-token FILE] [-refused IMAGES] [-readable IMAGES] IMAGE
//	probe echo [-addr :8080]
//	probe get URL
//	probe certificates HOST:PORT NAME
//	probe sniff [-addr :8080] MARK
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want a command: serve, write-read, hello, gate, scan, push, echo, get, certificates or sniff")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	addr := flags.String("addr", ":8080", "address that answers /readyz")
	tcp := flags.String("tcp", "1-65535", "TCP ports to scan, like 22,8000-8100")
	want := flags.String("want", "", "TCP ports that must be open; all others must not")
	token := flags.String("token", "", "file whose text is the password to push with; default: none")
	refused := flags.String("refused", "", "images, with commas between, whose push must be refused without a password")
	readable := flags.String("readable", "", "images, with commas between, that must be readable")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "hello":
		fmt.Println("hello from the lab, started at run time")
		return nil
	case "serve":
		return serve(ctx, *addr, http.NewServeMux(), func() error { return nil })
	case "write-read":
		if flags.NArg() != 1 {
			return errors.New("write-read wants one folder")
		}
		return serve(ctx, *addr, http.NewServeMux(), func() error { return writeRead(flags.Arg(0)) })
	case "gate":
		return gate(ctx, *addr)
	case "scan":
		if flags.NArg() != 1 {
			return errors.New("scan wants one host")
		}
		return scan(ctx, flags.Arg(0), *tcp, *want)
	case "push":
		if flags.NArg() != 1 {
			return errors.New("push wants one image")
		}
		return push(ctx, flags.Arg(0), *token, *refused, *readable)
	case "echo":
		return echo(ctx, *addr)
	case "get":
		return get(ctx, flags.Arg(0))
	case "certificates":
		return certificates(ctx, flags.Arg(0), flags.Arg(1))
	case "sniff":
		return sniff(ctx, *addr, flags.Arg(0))
	default:
		return fmt.Errorf("unknown command %q", args[0])
	}
}

// gate is not ready until somebody has sent a POST to /open.
func gate(ctx context.Context, addr string) error {
	opened, open := context.WithCancel(ctx)
	defer open()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /open", func(http.ResponseWriter, *http.Request) { open() })
	return serve(ctx, addr, mux, func() error { <-opened.Done(); return nil })
}

// serve answers /readyz with 503 until work is done, then with 200, until ctx ends.
func serve(ctx context.Context, addr string, mux *http.ServeMux, work func() error) error {
	var ready atomic.Bool
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready.Load() {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	})
	srv := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 2)
	go func() { failed <- srv.ListenAndServe() }()
	go func() {
		if err := work(); err != nil {
			failed <- err
			return
		}
		ready.Store(true)
		fmt.Println("ready")
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return srv.Close()
	}
}
