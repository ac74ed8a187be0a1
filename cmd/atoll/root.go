package main

import (
	"log"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newRootCommand(e *env) *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:   "atoll",
		Short: "Build offline appliances",
		Long: `Atoll builds an offline appliance: one disk image that holds an operating
system, a single-node Kubernetes, and every image and manifest of a stack, and
that installs all of it on its first boot with no network at all.

  appliance.yaml --lock--> appliance.lock --mirror--> store --bundle-->
  bundle.tar --bake--> disk image --boot--> ready node
` + exitStatus,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
		PersistentPreRun: func(*cobra.Command, []string) {
			if verbose {
				e.level.Set(slog.LevelDebug)
			} else {
				silenceLibraries()
			}
		},
	}
	cmd.SetOut(e.stdout)
	cmd.SetErr(e.stderr)
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		err = withoutValue(err)
		return usageError{withHint(err, "%s --help", c.CommandPath())}
	})
	cmd.PersistentFlags().BoolVarP(&verbose, "verbose", "v", false, "log what is done, to stderr")
	cmd.AddGroup(&cobra.Group{ID: "build", Title: "From definition to disk image:"},
		&cobra.Group{ID: "use", Title: "Running it:"})
	for _, c := range []*cobra.Command{newInitCommand(e), newImagesCommand(e), newLockCommand(e), newWhyCommand(e),
		newDiffCommand(e), newMirrorCommand(e),
		newBundleCommand(e), newSBOMCommand(e), newBakeCommand(e), newBuildCommand(e), newKeyCommand(e)} {
		c.GroupID = "build"
		cmd.AddCommand(c)
	}
	for _, c := range []*cobra.Command{newBootCommand(e), newFlashCommand(e), newNodeCommand(e)} {
		c.GroupID = "use"
		cmd.AddCommand(c)
	}
	return cmd
}

// silenceLibraries drops what libraries print by themselves: kustomize tells of each old
// field in someone else's manifests, which no user of ours can mend. Our own text is written
// through env.
func silenceLibraries() {
	if null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil {
		os.Stderr = null
		log.SetOutput(null)
	}
}

// args makes a wrong number of arguments a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{withHint(err, "%s --help", cmd.CommandPath())}
		}
		return nil
	}
}

// version is the module's version, as the go command stamped it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "(unknown)"
}
