package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"atoll/bundle"
	"atoll/bundle/manifest"
	"atoll/bundle/source"
	"atoll/bundle/stack"
	"atoll/images"
)

type imagesOptions struct {
	projectOptions
	sourceOptions
	manifests string
	json      bool
}

func newImagesCommand(e *env) *cobra.Command {
	var o imagesOptions
	cmd := &cobra.Command{
		Use:   "images",
		Short: "List the images that the stack needs, and where each was found",
		Long: `Images renders the stack and lists every image it needs, a line for each place that
names one. With --manifests it reads any other manifests instead. It uses no network: the
stack's sources are those that the lock names, or --source gives; other manifests may name
by URL what --source gives.

What looks like an image but cannot be told is reported to stderr. An image whose registry
is registry.atoll.svc.cluster.local is made on the node, by whoever pushes it there: it is
listed, and neither locked nor mirrored.
` + exitStatus,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.manifests != "" && cmd.Flags().Changed("file") {
				return usageError{withHint(errors.New("--file and --manifests exclude each other"), "%s --help", cmd.CommandPath())}
			}
			return runImages(cmd.Context(), e, o)
		},
	}
	o.projectOptions.addFlags(cmd.Flags())
	o.sourceOptions.addFlags(cmd.Flags())
	cmd.Flags().StringVar(&o.manifests, "manifests", "", "file, folder or kustomization to search instead of a definition's stack")
	cmd.Flags().BoolVar(&o.json, "json", false, "print a JSON list of objects with reference, tier and where")
	return cmd
}

func runImages(ctx context.Context, e *env, o imagesOptions) error {
	found, err := o.find(ctx)
	if err != nil {
		return err
	}
	for _, d := range found.Doubts {
		e.say("atoll: warning: %s", doubtText(d))
	}
	e.warnOfFloating(found)
	if o.json {
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(found.Images)
	}
	t := newTable(e.stdout)
	for _, i := range found.Images {
		tier := i.Tier
		switch i.Omitted {
		case "":
		case manifest.MadeOnNode:
			tier += ", " + i.Omitted
		default:
			tier += ", left out"
		}
		for _, where := range i.Where {
			t.row(i.Reference, tier, where.String())
		}
	}
	return t.Flush()
}

// doubtText says also why a reference is none, where that is what is wrong with it.
func doubtText(d manifest.Doubt) string {
	if _, err := bundle.CanonicalReference(d.Text); err != nil {
		return fmt.Sprintf("%s: %v", d, errors.Unwrap(err))
	}
	return d.String()
}

// warnOfFloating tells of each image that is asked for by no version: what it is, every
// lock finds out anew. That it was written without any tag is no other case.
func (e *env) warnOfFloating(found *manifest.Findings) {
	for _, im := range found.Images {
		_, _, tag, digest, err := bundle.SplitReference(im.Reference)
		if err == nil && tag == "latest" && digest == "" && im.Omitted == "" {
			e.say("atoll: warning: %s: the tag floats: each \"atoll lock\" may find another image; name a version", im.Reference)
		}
	}
}

// find gives the images of the definition's stack, or of other manifests.
func (o *imagesOptions) find(ctx context.Context) (*manifest.Findings, error) {
	if o.manifests == "" {
		p, err := o.load()
		if err != nil {
			return nil, err
		}
		sources, err := p.localSources(o.sourceOptions)
		if err != nil {
			return nil, err
		}
		err = p.render(ctx, sources)
		return p.found, hintSource(err)
	}
	sources, trees, err := o.given()
	if err != nil {
		return nil, err
	}
	objs, err := manifest.Read(ctx, o.manifests, sources, trees)
	if err != nil {
		return nil, hintSource(err)
	}
	return manifest.Images(objs)
}

// given are the sources that --source gives, of any stack: other manifests may name them too.
func (o *imagesOptions) given() ([]bundle.Source, map[string]*source.Tree, error) {
	var known, sources []bundle.Source
	for _, name := range stack.Names() {
		s, err := stack.Load(name)
		if err != nil {
			return nil, nil, err
		}
		known = append(known, s.Sources...)
	}
	opts := &images.Options{Sources: o.sources, AllowModified: o.allowModified}
	if err := images.CheckSources(opts, known); err != nil {
		return nil, nil, usageError{err}
	}
	trees := map[string]*source.Tree{}
	for _, s := range known {
		if o.sources[s.Name] == "" {
			continue
		}
		tree, err := images.ReadSource(s, opts)
		if err != nil {
			return nil, nil, err
		}
		sources, trees[s.Name] = append(sources, s), tree
	}
	return sources, trees, nil
}

// localSources gives the stack's sources from where the user says, else from the store as
// locked. Nothing is fetched.
func (p *project) localSources(o sourceOptions) (map[string]*source.Tree, error) {
	opts := &images.Options{Sources: o.sources, AllowModified: o.allowModified}
	if err := images.CheckSources(opts, p.stack.Sources); err != nil {
		return nil, usageError{err}
	}
	sources := map[string]*source.Tree{}
	for _, s := range p.stack.Sources {
		var err error
		if o.sources[s.Name] != "" {
			sources[s.Name], err = images.ReadSource(s, opts)
		} else {
			sources[s.Name], err = p.storedSource(s.Name)
		}
		if err != nil {
			return nil, err
		}
	}
	return sources, nil
}

func (p *project) storedSource(name string) (*source.Tree, error) {
	l, err := p.readLock()
	if err != nil {
		return nil, withHint(fmt.Errorf("source %s: %w", name, err), "or give it by --source %s=PATH", name)
	}
	s, err := p.store()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(l.Sources, func(l bundle.LockedSource) bool { return l.Name == name })
	tree, err := images.OpenSource(s, l.Sources[i]) // readLock has seen that it is there
	return tree, hintRemake(err, "atoll mirror -f %s", p.file)
}
