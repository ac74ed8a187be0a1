// Spark stands in for Apache Spark, which is Java and cannot be had. As spark-submit it makes
// an application's driver pod on Kubernetes from the command line that Spark's operator
// calls it with, as Spark's own does; as entrypoint.sh it is what runs in that pod: it says
// that it is a stand-in and what it was to run, and ends. There are no executors.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, filepath.Base(os.Args[0]), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stand-in for Spark:", err)
		os.Exit(1)
	}
}

// run does what the program of a name does.
func run(ctx context.Context, name string, args []string) error {
	if name != "spark-submit" {
		if len(args) == 0 {
			return errors.New("nothing to run")
		}
		fmt.Printf("stand-in for Spark, which is not here: it would run %s\n", strings.Join(args, " "))
		return nil
	}
	a, err := parse(args)
	if err != nil {
		return err
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	return submit(ctx, client, a)
}
