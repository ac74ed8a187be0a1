// Probe is the lab's all-purpose container: it serves, it writes and reads a
// volume, it says hello.
//
//	probe serve [-addr :8080]
//	probe write-read [-addr :8080] DIR
//	probe hello
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
		return errors.New("want a command: serve, write-read or hello")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	addr := flags.String("addr", ":8080", "address that answers /readyz")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "hello":
		fmt.Println("hello from the lab, started at run time")
		return nil
	case "serve":
		return serve(ctx, *addr, func() error { return nil })
	case "write-read":
		if flags.NArg() != 1 {
			return errors.New("write-read wants one folder")
		}
		return serve(ctx, *addr, func() error { return writeRead(flags.Arg(0)) })
	default:
		return fmt.Errorf("unknown command %q", args[0])
	}
}

// serve answers /readyz with 503 until work is done, then with 200, until ctx ends.
func serve(ctx context.Context, addr string, work func() error) error {
	var ready atomic.Bool
	mux := http.NewServeMux()
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
