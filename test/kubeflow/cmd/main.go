// Cmd builds the appliance of Kubeflow for "make kubeflow".
//
//	cmd -manifests PATH [-full] [-auth NAME] [-key FILE] DIR
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"atoll/bundle"
	"atoll/test/kubeflow"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o := kubeflow.Options{Log: os.Stderr}
	flags := flag.NewFlagSet("kubeflow", flag.ContinueOnError)
	flags.StringVar(&o.Manifests, "manifests", "", "folder or tar archive with upstream's manifests")
	flags.StringVar(&o.K3s, "k3s", "build/k3s", "folder of the k3s release")
	flags.StringVar(&o.Atoll, "atoll", "build/atoll", "the program atoll")
	flags.StringVar(&o.LabImages, "labimages", "build/labimages", "the program labimages")
	flags.StringVar(&o.Programs, "programs", "build/programs", "folder of images that test/programs writes")
	flags.BoolVar(&o.Full, "full", false, "take all programs that can be had, not only the small set")
	flags.StringVar(&o.Auth, "auth", "", "way to sign in (default: that of appliance.yaml)")
	key := flags.String("key", "", "public ssh key that user lab logs in with")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("want one folder to write to")
	}
	o.Dir = flags.Arg(0)
	if *key != "" {
		text, err := os.ReadFile(*key)
		if err != nil {
			return err
		}
		o.Users = []bundle.User{{Name: "lab", Sudo: true, SSHAuthorizedKeys: []string{strings.TrimSpace(string(text))}}}
	}
	_, _, err := kubeflow.Build(ctx, &o)
	return err
}
