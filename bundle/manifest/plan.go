package manifest

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"

	"atoll/bundle"
	"atoll/bundle/stack"
)

// Plan renders a stack: its phases as the node installs them, and the images that
// they need, without what the stack waives. The same stack gives the same plan, byte by
// byte. An object that is in the stack twice is an error, as is a waiver that nothing needs.
func Plan(s *stack.Stack) (*bundle.Plan, *Findings, error) {
	mem, err := load(s.FS)
	if err != nil {
		return nil, nil, fmt.Errorf("planning stack %q: %w", s.Name, err)
	}
	plan := bundle.Plan{Stack: s.Name}
	var all []Object
	seen := map[string]string{}
	for _, p := range s.Phases {
		var objs []Object
		for _, c := range p.Components {
			o, err := render(mem, c)
			if err != nil {
				return nil, nil, fmt.Errorf("planning stack %q: phase %s: %w", s.Name, p.Name, err)
			}
			objs = append(objs, o...)
		}
		for _, o := range objs {
			id := o.id()
			if first, ok := seen[id]; ok {
				return nil, nil, fmt.Errorf("planning stack %q: %s is in component %s and again in %s", s.Name, id, first, o.Source)
			}
			seen[id] = o.Source
		}
		text, err := encode(objs)
		if err != nil {
			return nil, nil, fmt.Errorf("planning stack %q: phase %s: %w", s.Name, p.Name, err)
		}
		plan.Phases = append(plan.Phases, bundle.Phase{Name: p.Name, Manifest: text, Timeout: p.Timeout})
		all = append(all, objs...)
	}
	found, err := Images(all)
	if err != nil {
		return nil, nil, fmt.Errorf("planning stack %q: %w", s.Name, err)
	}
	if err := found.waive(s.Waivers); err != nil {
		return nil, nil, fmt.Errorf("planning stack %q: %w", s.Name, err)
	}
	return &plan, found, nil
}

// id tells an object apart: apiVersion, kind, namespace and name.
func (o Object) id() string {
	meta, _ := o.Value["metadata"].(map[string]any)
	text := func(v any) string {
		s, _ := v.(string)
		return s
	}
	name := text(meta["name"])
	if ns := text(meta["namespace"]); ns != "" {
		name = ns + "/" + name
	}
	return fmt.Sprintf("%s %s %s", text(o.Value["apiVersion"]), text(o.Value["kind"]), name)
}

// encode writes objects as a YAML stream; map keys are sorted by the encoder.
func encode(objs []Object) (string, error) {
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	for _, o := range objs {
		if err := enc.Encode(o.Value); err != nil {
			return "", fmt.Errorf("encoding %s: %w", o.id(), err)
		}
	}
	if err := enc.Close(); err != nil {
		return "", err
	}
	return buf.String(), nil
}
