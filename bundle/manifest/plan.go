package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"atoll/bundle"
	"atoll/bundle/source"
	"atoll/bundle/stack"
)

// Input is what a plan is made of.
type Input struct {
	Stack *stack.Stack
	// Definition says what of the stack is wanted, and what is added to it.
	Definition *bundle.Definition
	// Sources are those of the stack, by name.
	Sources map[string]*source.Tree
	// Cache is a folder that keeps what was rendered. Empty keeps nothing.
	Cache string
}

// Plan renders a stack: its phases as the node installs them, and the images that it
// needs. The same input gives the same plan, byte by byte. An object that is there
// twice is an error, as is whatever in the stack or the definition nothing comes of: a
// waiver, a pattern, a component that is not there.
func Plan(ctx context.Context, in Input) (*bundle.Plan, *Findings, error) {
	plan, found, err := in.plan(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("planning stack %q: %w", in.Stack.Name, err)
	}
	return plan, found, nil
}

func (in Input) plan(ctx context.Context) (*bundle.Plan, *Findings, error) {
	components, err := in.Stack.Choose(in.Definition.Auth, in.Definition.Without)
	if err != nil {
		return nil, nil, err
	}
	objs, err := in.objects(ctx, components)
	if err != nil {
		return nil, nil, err
	}
	found, err := Images(objs)
	if err != nil {
		return nil, nil, err
	}
	if err := found.choose(in.Stack, in.Definition, components); err != nil {
		return nil, nil, err
	}
	objs = prune(objs, found, in.Stack.Prune)
	if err := addRegistries(objs, found, in.Stack.Registries); err != nil {
		return nil, nil, err
	}
	plan := &bundle.Plan{Stack: in.Stack.Name}
	if plan.Secrets, err = empty(objs, in.Stack.Secrets); err != nil {
		return nil, nil, err
	}
	if plan.Phases, err = phases(objs, in.Stack, components); err != nil {
		return nil, nil, err
	}
	return plan, found, nil
}

// objects renders the components, in parallel, and then the user's overlays over all of
// them. Each object keeps its component for a source.
func (in Input) objects(ctx context.Context, components []string) ([]Object, error) {
	t := newTree(in.Stack.Sources)
	if err := t.add("", in.Stack.FS); err != nil {
		return nil, err
	}
	if err := t.addSources(in.Sources); err != nil {
		return nil, err
	}
	cached := cache{dir: in.Cache, tree: t.digest()}
	for _, c := range components {
		if _, err := t.check(c); err != nil {
			return nil, fmt.Errorf("component %s: %w", c, err)
		}
	}
	rendered := make([][]Object, len(components))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, c := range components {
		g.Go(func() (err error) {
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			rendered[i], err = cached.get(c, func() ([]Object, error) { return t.render(gctx, c) })
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	objs := slices.Concat(rendered...)
	if err := unique(objs); err != nil {
		return nil, err
	}
	return t.overlay(ctx, objs, in.Definition)
}

// unique refuses an object that is there twice.
func unique(objs []Object) error {
	seen := map[string]string{}
	for _, o := range objs {
		id := o.id()
		if first, ok := seen[id]; ok {
			return fmt.Errorf("%s is in component %s and again in %s", id, first, o.Source)
		}
		seen[id] = o.Source
	}
	return nil
}

// phases puts each object into the phase that takes it: the first of its kind, else that
// of its component.
func phases(objs []Object, s *stack.Stack, components []string) ([]bundle.Phase, error) {
	all := append(slices.Clone(s.Phases), stack.Phase{Name: userPhase, Components: []string{userPhase}, Timeout: userTimeout})
	taken := make([][]Object, len(all))
	for _, o := range objs {
		kind, _ := o.Value["kind"].(string)
		at := slices.IndexFunc(all, func(p stack.Phase) bool {
			return slices.Contains(p.Kinds, kind) && (len(p.Components) == 0 || slices.Contains(p.Components, o.Source))
		})
		if at < 0 {
			at = slices.IndexFunc(all, func(p stack.Phase) bool { return len(p.Kinds) == 0 && slices.Contains(p.Components, o.Source) })
		}
		if at < 0 {
			return nil, fmt.Errorf("no phase takes %s of component %s", o.id(), o.Source)
		}
		taken[at] = append(taken[at], o)
	}
	var out []bundle.Phase
	for i, p := range all {
		if len(taken[i]) == 0 {
			continue // all of it is switched off
		}
		text, err := encode(taken[i])
		if err != nil {
			return nil, fmt.Errorf("phase %s: %w", p.Name, err)
		}
		out = append(out, bundle.Phase{Name: p.Name, Manifest: text, Timeout: p.Timeout})
	}
	return out, nil
}

// id tells an object apart: apiVersion, kind, namespace and name.
func (o Object) id() string {
	ns, name := o.namespacedName()
	if ns != "" {
		name = ns + "/" + name
	}
	api, _ := o.Value["apiVersion"].(string)
	kind, _ := o.Value["kind"].(string)
	return fmt.Sprintf("%s %s %s", api, kind, name)
}

func (o Object) namespacedName() (namespace, name string) {
	meta, _ := o.Value["metadata"].(map[string]any)
	namespace, _ = meta["namespace"].(string)
	name, _ = meta["name"].(string)
	return namespace, name
}

// encode writes objects as a YAML stream; map keys are sorted by the encoder.
func encode(objs []Object) (string, error) {
	texts := make([][]byte, len(objs))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, o := range objs {
		g.Go(func() error {
			var buf bytes.Buffer
			enc := yaml.NewEncoder(&buf)
			enc.SetIndent(2)
			if err := errors.Join(enc.Encode(o.Value), enc.Close()); err != nil {
				return fmt.Errorf("encoding %s: %w", o.id(), err)
			}
			texts[i] = buf.Bytes()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	return string(bytes.Join(texts, []byte("---\n"))), nil
}
