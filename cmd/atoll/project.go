package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"atoll/bundle"
	"atoll/bundle/bounds"
	"atoll/bundle/manifest"
	"atoll/bundle/source"
	"atoll/bundle/stack"
	"atoll/images"
)

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
	stack    *stack.Stack
	file     string
	lockFile string
	out      string // build/
	cache    string

	// Known once the stack is rendered:
	planJSON []byte
	found    *manifest.Findings
}

// load reads the definition and the stack that it names. It needs no network.
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
	s, err := stack.Load(def.Stack)
	if err != nil {
		return nil, err
	}
	return &project{def: def, stack: s, file: o.file, cache: cache,
		lockFile: lockFile(o.file),
		out:      filepath.Join(filepath.Dir(o.file), "build")}, nil
}

// render makes the plan of the stack out of its sources.
func (p *project) render(ctx context.Context, sources map[string]*source.Tree) error {
	plan, found, err := manifest.Plan(ctx, manifest.Input{Stack: p.stack, Definition: p.def, Sources: sources, Cache: filepath.Join(p.cache, "rendered")})
	if err != nil {
		return err
	}
	p.found = found
	p.planJSON, err = plan.Encode()
	return err
}

// renderLocked does so out of those that a lock names, which the store has.
func (p *project) renderLocked(ctx context.Context, locked []bundle.LockedSource) error {
	if len(locked) == 0 {
		return p.render(ctx, nil)
	}
	s, err := p.store()
	if err != nil {
		return err
	}
	sources := map[string]*source.Tree{}
	for _, l := range locked {
		if sources[l.Name], err = images.OpenSource(s, l); err != nil {
			return hintRemake(err, "atoll mirror -f %s", p.file)
		}
	}
	return p.render(ctx, sources)
}

// store opens the machine's store, made if it is not there.
func (p *project) store() (*bundle.Store, error) {
	return bundle.OpenStore(filepath.Join(p.cache, "store"))
}

// lockFile is where the lock of a definition lies: beside it.
func lockFile(definition string) string {
	return strings.TrimSuffix(definition, filepath.Ext(definition)) + ".lock"
}

func readLock(path string) (*bundle.Lock, error) {
	data, err := bundle.ReadRegular(path, bounds.Lock)
	if err != nil {
		return nil, fmt.Errorf("reading lock: %w", err)
	}
	return bundle.ParseLock(path, data)
}

// readLock reads the lock and refuses one of another definition or other sources.
func (p *project) readLock() (*bundle.Lock, error) {
	mend := "atoll lock -f " + p.file
	l, err := readLock(p.lockFile)
	if err != nil {
		return nil, withHint(err, "%s", mend)
	}
	if err := l.Check(p.def, p.stack.Sources); err != nil {
		return nil, withHint(fmt.Errorf("%s: %w", p.lockFile, err), "%s", mend)
	}
	return l, nil
}

// lock reads the lock, renders the stack out of its sources and refuses a stale one.
func (p *project) lock(ctx context.Context) (*bundle.Lock, error) {
	l, err := p.readLock()
	if err != nil {
		return nil, err
	}
	return l, p.checkLock(ctx, l)
}

// checkLock renders the stack and refuses a lock of other manifests.
func (p *project) checkLock(ctx context.Context, l *bundle.Lock) error {
	if err := p.renderLocked(ctx, l.Sources); err != nil {
		return err
	}
	if now := bundle.DigestOf(p.planJSON); now != l.Manifests {
		return withHint(fmt.Errorf("%s: %w: made from other manifests of stack %q (%s, now %s)", p.lockFile, bundle.ErrStale, p.def.Stack, l.Manifests, now),
			"atoll lock -f %s", p.file)
	}
	return p.checkImages(l)
}

// checkImages refuses a lock that lacks images of the stack: somebody edited it. All that
// follows would be whole by the lock, and end in a node that waits for ever.
func (p *project) checkImages(l *bundle.Lock) error {
	locked := map[string]bool{}
	for _, im := range l.Images {
		locked[im.Reference] = true
	}
	var lacks []string
	for _, im := range p.found.Images {
		if im.Omitted == "" && !locked[im.Reference] {
			lacks = append(lacks, im.Reference)
		}
	}
	if len(lacks) == 0 {
		return nil
	}
	return withHint(fmt.Errorf("%s: %w: lacks %d of the images that the stack needs, like %s", p.lockFile, bundle.ErrStale, len(lacks), lacks[0]),
		"atoll lock -f %s", p.file)
}

// built is a result's place in build/.
func (p *project) built(suffix string) string { return filepath.Join(p.out, p.def.Name+suffix) }

// output is where a result goes: what the user said, else its place in build/. That a file
// can be there is asked before anything is done for it.
func (p *project) output(flag, suffix string) (string, error) {
	path := cmp.Or(flag, p.built(suffix))
	return path, hintOutput(bundle.CheckOutput(path))
}

// makeOut makes build/, if that is where the result goes.
func (p *project) makeOut(path string) error {
	if filepath.Dir(path) != p.out {
		return nil
	}
	if err := os.MkdirAll(p.out, 0o755); err != nil {
		return fmt.Errorf("making the output folder: %w", err)
	}
	return nil
}

// hintOutput says where to write instead, if there is no place for a file.
func hintOutput(err error) error {
	var odd *bundle.NotRegularError
	switch {
	case !errors.As(err, &odd):
		return err
	case odd.IsBlockDevice():
		return withHint(err, "write to a file; then \"atoll flash IMAGE %s\" writes an image to that disk", odd.Path)
	case odd.Link != "":
		return withHint(err, "name the file that it leads to, or remove the link")
	}
	return withHint(err, "name a new file, or one that may be replaced")
}
