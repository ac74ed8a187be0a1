// Labimages makes the container images of the lab stack and serves them from a
// real registry on loopback, so that a lab appliance can be built without
// reaching any registry.
//
//	labimages push URL                                    build and push to a registry
//	labimages serve [-addr A] [-dir D] -- COMMAND [ARG…]   run a registry, push, run COMMAND, stop
//	labimages digests                                     print names and digests
//
// An image named HOST/REPO:TAG is pushed as HOST/REPO:TAG below the registry's
// URL, so that "--mirror HOST=URL/HOST" finds it. In COMMAND and its arguments
// "{registry}" stands for the registry's URL.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.ExitCode() > 0: // COMMAND has told why itself
		os.Exit(exit.ExitCode())
	default:
		fmt.Fprintln(os.Stderr, "labimages:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want a command: push, serve or digests")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:0", "serve: loopback address of the registry; port 0 takes a free one")
	dir := flags.String("dir", "build/registry", "serve: folder of the registry's content")
	var more extra
	flags.StringVar(&more.standIns, "stand-ins", "", "file with names, one a line, to push a small image under each as well")
	flags.StringVar(&more.programs, "programs", "", "folder that test/programs wrote: its images are pushed instead of small ones, under the names of -stand-ins")
	flags.Func("plan", "plan to put into the image ghcr.io/atoll-lab/dryrun:1.0, which is pushed then; may be repeated", func(path string) error {
		more.plans = append(more.plans, path)
		return nil
	})
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "push":
		if flags.NArg() != 1 {
			return errors.New("push wants the URL of one registry")
		}
		return push(ctx, flags.Arg(0), more)
	case "serve":
		if flags.NArg() == 0 {
			return errors.New("serve wants a command after --")
		}
		return serve(ctx, *addr, *dir, more, flags.Args())
	case "digests":
		return printDigests(ctx, more)
	default:
		return fmt.Errorf("unknown command %q", args[0])
	}
}

func printDigests(ctx context.Context, more extra) error {
	all, err := buildAll(ctx, more)
	if err != nil {
		return err
	}
	for _, b := range all {
		d, err := digestOf(b.what)
		if err != nil {
			return err
		}
		for _, n := range b.names {
			fmt.Println(d, n)
		}
	}
	return nil
}
