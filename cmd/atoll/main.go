// Atoll builds offline appliances: disk images that install a whole Kubernetes
// stack on their first boot, with no network.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	e := newEnv(os.Stdout, os.Stderr)
	err := newRootCommand(e).ExecuteContext(ctx)
	if ctx.Err() != nil && err != nil {
		err = ctx.Err() // told by what the user did, not by what it broke
	}
	e.tell(err)
	os.Exit(exitCode(err))
}
