package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"atoll/bundle"
	"atoll/bundle/manifest"
	"atoll/bundle/stack"
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
		return usageError{withHint(err, "%s --help", c.CommandPath())}
	})
	cmd.PersistentFlags().BoolVarP(&verbose, "verbose", "v", false, "log what is done, to stderr")
	cmd.AddGroup(&cobra.Group{ID: "build", Title: "From definition to disk image:"},
		&cobra.Group{ID: "use", Title: "Running it:"})
	for _, c := range []*cobra.Command{newInitCommand(e), newImagesCommand(e), newLockCommand(e), newMirrorCommand(e),
		newBundleCommand(e), newBakeCommand(e), newBuildCommand(e)} {
		c.GroupID = "build"
		cmd.AddCommand(c)
	}
	for _, c := range []*cobra.Command{newBootCommand(e), newNodeCommand(e)} {
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

// projectOptions are the flags of every command that reads a definition.
type projectOptions struct {
	file  string
	cache string
}

func (o *projectOptions) addFlags(f *pflag.FlagSet) {
	f.StringVarP(&o.file, "file", "f", "appliance.yaml", "definition to read; its lock and build/ lie beside it")
	f.StringVar(&o.cache, "cache", "", "folder for what is downloaded and built once (default: atoll in the user's cache folder)")
}

// project is a definition and the places that belong to it.
type project struct {
	def      *bundle.Definition
	file     string
	lockFile string
	out      string // build/
	cache    string
	planJSON []byte // the stack's rendered plan
	found    *manifest.Findings
}

// load reads the definition and renders its stack. It needs no network.
func (o *projectOptions) load() (*project, error) {
	def, err := bundle.ReadDefinition(o.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, withHint(err, `"atoll init" writes one`)
	}
	if err != nil {
		return nil, err
	}
	cache := o.cache
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, withHint(fmt.Errorf("finding the cache folder: %w", err), "set --cache")
		}
		cache = filepath.Join(dir, "atoll")
	}
	p := &project{def: def, file: o.file, cache: cache,
		lockFile: o.file[:len(o.file)-len(filepath.Ext(o.file))] + ".lock",
		out:      filepath.Join(filepath.Dir(o.file), "build")}
	return p, p.render()
}

func (p *project) render() error {
	s, err := stack.Load(p.def.Stack)
	if err != nil {
		return err
	}
	plan, found, err := manifest.Plan(s)
	if err != nil {
		return err
	}
	p.found = found
	p.planJSON, err = plan.Encode()
	return err
}

// store opens the machine's store, made if it is not there.
func (p *project) store() (*bundle.Store, error) {
	return bundle.OpenStore(filepath.Join(p.cache, "store"))
}

// lock reads the lock and refuses a stale one.
func (p *project) lock() (*bundle.Lock, error) {
	mend := "atoll lock -f " + p.file
	data, err := os.ReadFile(p.lockFile)
	if err != nil {
		return nil, withHint(fmt.Errorf("reading lock: %w", err), "%s", mend)
	}
	l, err := bundle.ParseLock(p.lockFile, data)
	if err != nil {
		return nil, withHint(err, "%s", mend)
	}
	if err := l.Check(p.def, bundle.DigestOf(p.planJSON)); err != nil {
		return nil, withHint(fmt.Errorf("%s: %w", p.lockFile, err), "%s", mend)
	}
	return l, nil
}

// output is where a result goes: what the user said, else its place in build/,
// which is then made.
func (p *project) output(flag, suffix string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	if err := os.MkdirAll(p.out, 0o755); err != nil {
		return "", fmt.Errorf("making the output folder: %w", err)
	}
	return filepath.Join(p.out, p.def.Name+suffix), nil
}
