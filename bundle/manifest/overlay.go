package manifest

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/types"

	"atoll/bundle"
)

const (
	// userPhase installs what the user's overlays add.
	userPhase = "overlays"
	// userTimeout bounds it. Nobody knows what that is: it is as long as the longest phases of
	// stacks.
	userTimeout = 45 * time.Minute
)

// overlay runs the user's kustomizations over all objects: what a kustomization has is
// added, what a kustomize Component says is done to all. They may build upon the tree's sources.
func (t *tree) overlay(ctx context.Context, objs []Object, d *bundle.Definition) ([]Object, error) {
	if len(d.Overlays) == 0 {
		return objs, nil
	}
	text, err := encode(objs)
	if err != nil {
		return nil, err
	}
	all := map[string]any{"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
	resources, kustomizeComponents := []string{"all.yaml"}, []string{}
	for i, dir := range d.Overlays {
		name := fmt.Sprintf("%s/%d", userPhase, i)
		if err := t.add(name, os.DirFS(d.Path(dir))); err != nil {
			return nil, fmt.Errorf("overlay %s: %w", dir, err)
		}
		kind, err := t.check(name)
		if err != nil {
			return nil, fmt.Errorf("overlay %s: %w", dir, err)
		}
		if kind == types.ComponentKind {
			kustomizeComponents = append(kustomizeComponents, fmt.Sprint(i))
		} else {
			resources = append(resources, fmt.Sprint(i))
		}
	}
	all["resources"], all["components"] = resources, kustomizeComponents
	k, err := yaml.Marshal(all)
	if err != nil {
		return nil, err
	}
	t.memory.write("/"+userPhase+"/all.yaml", []byte(text))
	t.memory.write("/"+userPhase+"/kustomization.yaml", k)
	t.checker.checked.put("/"+userPhase+"/all.yaml", []byte(text)) // is ours: no need to look at it
	if _, err := t.check(userPhase); err != nil {
		return nil, fmt.Errorf("overlays: %w", err)
	}
	out, err := t.render(ctx, userPhase)
	if err != nil {
		return nil, fmt.Errorf("overlays: %w", err)
	}
	from := map[string]string{}
	for _, o := range objs {
		from[o.id()] = o.Source
	}
	for i, o := range out {
		if component, ok := from[o.id()]; ok {
			out[i].Source = component
		}
	}
	return out, unique(out)
}
