// Bench measures atoll beside its peers: whole commands, in turns, on the same input, so
// that what else the machine does meets all of them. It prints medians and ratios.
//
//	bench rendering [-runs N] ATOLL
//	bench mirror [-runs N] [-size MB] ATOLL REGISTRY
//
// REGISTRY is the URL of one on loopback, which "labimages serve" starts. What mirror
// writes goes to a folder in TMPDIR, which has to be on a disk: one in memory makes fsync
// cost nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want a command: rendering or mirror")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	runs := flags.Int("runs", 3, "how often each command is run")
	size := flags.Int64("size", 2200, "mirror: megabytes of all distinct blobs")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if *runs < 1 || *size < 100 {
		return errors.New("want at least one run, and 100 MB")
	}
	wanted := map[string]int{"rendering": 1, "mirror": 2}[args[0]]
	if wanted == 0 || flags.NArg() != wanted {
		return errors.New("usage: bench rendering [-runs N] ATOLL, or bench mirror [-runs N] [-size MB] ATOLL REGISTRY")
	}
	atoll, err := filepath.Abs(flags.Arg(0))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if args[0] == "rendering" {
		return rendering(ctx, dir, atoll, *runs)
	}
	return mirror(ctx, dir, atoll, flags.Arg(1), *runs, *size*1e6)
}

// install builds commands of Go modules, each given as PACKAGE@VERSION, into a folder.
func install(ctx context.Context, dir string, packages ...string) error {
	for _, p := range packages {
		cmd := exec.CommandContext(ctx, "go", "install", p)
		cmd.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("installing %s: %w\n%s", p, err, out)
		}
	}
	return nil
}
