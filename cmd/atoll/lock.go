package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"atoll/bundle"
	"atoll/bundle/bounds"
	"atoll/bundle/manifest"
	"atoll/images"
	"atoll/images/disk"
)

// remoteOptions are the flags of the commands that dial out.
type remoteOptions struct {
	mirrors   mirrorFlag
	plainHTTP hostsFlag
	limitRate byteRate
	verify    bool
	sourceOptions
}

// sourceOptions are the flags of the commands that read a stack's sources.
type sourceOptions struct {
	sources       map[string]string
	allowModified []string
}

func (o *sourceOptions) addFlags(f *pflag.FlagSet) {
	f.StringToStringVar(&o.sources, "source", nil, "take a source from disk: `NAME=PATH` of a folder, an archive or a file, may be repeated; k3s=FOLDER is the k3s release")
	f.StringSliceVar(&o.allowModified, "allow-modified", nil, "take the source `NAME` as it is, though it is not the one that the stack names")
}

func (o *remoteOptions) addFlags(f *pflag.FlagSet) {
	f.Var(&o.mirrors, "mirror", "send the traffic of a registry, or of a host of sources or of the k3s release, elsewhere: `HOST=URL`, may be repeated")
	f.Var(&o.plainHTTP, "plain-http", "ask the registry `HOST` by http, without TLS; may be repeated")
	f.Var(&o.limitRate, "limit-rate", "transfer no more than `RATE` bytes a second in all, with K, M or G after the number if need be")
	o.sourceOptions.addFlags(f)
}

func (o *remoteOptions) options(e *env) *images.Options {
	return &images.Options{
		Mirrors: o.mirrors, PlainHTTP: o.plainHTTP, LimitRate: int64(o.limitRate),
		Sources: o.sources, AllowModified: o.allowModified, Verify: o.verify, Log: e.log,
		Keychain: e.keychain,
	}
}

type lockOptions struct {
	projectOptions
	remoteOptions
	frozen bool
}

func newLockCommand(e *env) *cobra.Command {
	var o lockOptions
	cmd := &cobra.Command{
		Use:   "lock",
		Short: "Resolve the definition into appliance.lock",
		Long: `Lock asks registries, the k3s release and the Debian archive what the definition
means today, and writes the answer to the lock beside it: every source tree, image,
file and package by checksum. It prints how large the images are, before any is fetched.

With --frozen it writes nothing and asks no registry: it fails, with exit status 3, if
the lock does not fit the definition and the stack any more.
` + exitStatus,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runLock(cmd.Context(), e, o) },
	}
	o.projectOptions.addFlags(cmd.Flags())
	o.remoteOptions.addFlags(cmd.Flags())
	addFrozen(cmd.Flags(), &o.frozen)
	return cmd
}

func addFrozen(f *pflag.FlagSet, frozen *bool) {
	f.BoolVar(frozen, "frozen", false, "fail if the lock is missing or stale, for CI; never write one")
}

func runLock(ctx context.Context, e *env, o lockOptions) error {
	p, err := o.load()
	if err != nil {
		return err
	}
	if o.frozen {
		l, err := p.frozen(ctx, e, o.remoteOptions)
		if err != nil {
			return err
		}
		return writeSizes(e.stdout, l)
	}
	l, err := p.resolve(ctx, e, o.remoteOptions)
	if err != nil {
		return err
	}
	return writeSizes(e.stdout, l)
}

// frozen reads the lock and gets the sources that it names, so that it can be held
// against what they render to.
func (p *project) frozen(ctx context.Context, e *env, o remoteOptions) (*bundle.Lock, error) {
	l, err := p.readLock()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, withHint(fmt.Errorf("%s: %w: there is none", p.lockFile, bundle.ErrStale), "atoll lock -f %s", p.file)
	}
	if err != nil {
		return nil, err
	}
	e.warnOfUnauthenticated(l)
	if err := p.mirrorSources(ctx, e, l, o); err != nil {
		return nil, err
	}
	return l, p.checkLock(ctx, l)
}

// resolve makes the lock.
func (p *project) resolve(ctx context.Context, e *env, o remoteOptions) (*bundle.Lock, error) {
	if err := hintOutput(bundle.CheckOutput(p.lockFile)); err != nil {
		return nil, err
	}
	opts := o.options(e)
	sources, err := p.fetchSources(ctx, e, opts)
	if err != nil {
		return nil, err
	}
	if err := p.renderLocked(ctx, sources); err != nil {
		return nil, hintSource(err)
	}
	wanted, err := p.wanted()
	if err != nil {
		return nil, err
	}
	e.warnOfFloating(p.found)
	var names []string
	for _, w := range wanted {
		names = append(names, cmp.Or(w.From, w.Reference))
	}
	p.warnOfNeedless(e, opts, names)
	s, err := p.store()
	if err != nil {
		return nil, err
	}
	step := e.progress("lock")
	hosts, err := images.ResolveBudget(ctx, p.def, wanted, opts)
	if err != nil {
		return nil, err
	}
	for _, h := range hosts {
		e.say("lock: %s", h)
	}
	opts.Reading = step.reading
	l, err := images.Resolve(ctx, p.def, wanted, bundle.DigestOf(p.planJSON), disk.Packages(p.def.Base.Packages), s, opts)
	if err != nil {
		step.end(err, "")
		return nil, err
	}
	l.Sources = sources
	e.warnOfUnauthenticated(l)
	data, err := l.Encode()
	if err != nil {
		return nil, err
	}
	if old, err := bundle.ReadRegular(p.lockFile, bounds.Lock); err == nil && bytes.Equal(old, data) {
		step.end(nil, "%s is up to date", p.lockFile)
		return l, nil
	}
	err = bundle.WriteFile(p.lockFile, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
	step.end(err, "%d images, %d files, %d packages in %s", len(l.Images), len(l.Files), len(l.Packages), p.lockFile)
	return l, err
}

// warnOfUnauthenticated tells of the packages that came from archives without a signature,
// on the word of the definition.
func (e *env) warnOfUnauthenticated(l *bundle.Lock) {
	var names []string
	for _, p := range l.Packages {
		if p.Unauthenticated {
			names = append(names, p.Name)
		}
	}
	if n := len(names); n > 0 {
		if n > 5 {
			names = append(names[:5], "…")
		}
		e.say("atoll: warning: %d of %d packages are locked without a signature, for base.sources says trusted=yes: %s", n, len(l.Packages), strings.Join(names, ", "))
	}
}

// fetchSources puts the stack's sources into the store.
func (p *project) fetchSources(ctx context.Context, e *env, opts *images.Options) ([]bundle.LockedSource, error) {
	if err := images.CheckSources(opts, p.stack.Sources); err != nil {
		return nil, usageError{err}
	}
	if len(p.stack.Sources) == 0 {
		return nil, nil
	}
	s, err := p.store()
	if err != nil {
		return nil, err
	}
	var before []bundle.LockedSource
	if l, err := readLock(p.lockFile); err == nil { // what cannot be read says nothing
		before = l.Sources
	}
	step := e.progress("sources")
	if err := e.saySources(ctx, p.stack.Sources, before, s, opts); err != nil {
		return nil, err
	}
	locked, err := images.FetchSources(ctx, p.def, p.stack.Sources, before, s, opts)
	step.end(err, "%d", len(locked))
	e.warnOfFirstSight(locked, before)
	return locked, err
}

// warnOfFirstSight tells of each source that was taken on trust, and was not so before.
func (e *env) warnOfFirstSight(locked, before []bundle.LockedSource) {
	for _, l := range locked {
		held := slices.ContainsFunc(before, func(old bundle.LockedSource) bool { return old.Name == l.Name && old.Digest == l.Digest })
		if l.FirstSight && !held {
			e.say("atoll: warning: source %s is taken at first sight: the stack states no hash of %s; it is locked with %s, and a later lock will hold it to that", l.Name, l.URL, l.Digest)
		}
	}
}

// saySources tells what hosts will be asked for sources.
func (e *env) saySources(ctx context.Context, sources []bundle.Source, locked []bundle.LockedSource, s *bundle.Store, opts *images.Options) error {
	hosts, err := images.SourceBudget(ctx, sources, locked, s, opts)
	for _, h := range hosts {
		e.say("sources: %s", h)
	}
	return err
}

// hintSource says what to do about what no source has.
func hintSource(err error) error {
	var remote *manifest.RemoteError
	if errors.As(err, &remote) {
		return withHint(err, "put it beside the kustomization, or give the source that has it by --source NAME=PATH")
	}
	if errors.Is(err, manifest.ErrOutside) {
		return withHint(err, "give the folder of that file a kustomization.yaml, and name the folder")
	}
	return err
}

// wanted are the images to resolve. What may be an image and cannot be told is an error.
func (p *project) wanted() ([]images.Wanted, error) {
	var errs []error
	for _, d := range p.found.Doubts {
		errs = append(errs, errors.New(doubtText(d)))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, withHint(err, "waive it in the stack, or write a rule for it")
	}
	var wanted []images.Wanted
	for _, i := range p.found.Images {
		if i.Omitted != "" {
			continue
		}
		w := images.Wanted{Reference: i.Reference, From: i.From, Tier: i.Tier}
		for _, place := range i.Where {
			w.Where = append(w.Where, place.String())
		}
		wanted = append(wanted, w)
	}
	return wanted, nil
}
