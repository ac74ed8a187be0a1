// Package stack holds the stacks that atoll knows, as data: kustomizations, the
// phases they are installed in, and rules about their images. A stack is compiled
// into atoll, so one atoll always renders the same manifests.
package stack

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

//go:embed lab kubeflow
var files embed.FS

// Stack is a set of Kubernetes objects that is installed as one.
type Stack struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description"`
	// Sources are where manifests come from that the stack does not hold itself. Its
	// kustomizations name them as anyone's would: by a repository's or a file's URL.
	Sources []bundle.Source `yaml:"sources,omitempty"`
	// Auth are ways to sign in, of which one is chosen; the first is the default.
	Auth []Auth `yaml:"auth,omitempty"`
	// Phases are installed in this order.
	Phases []Phase `yaml:"phases"`
	// Waivers name what looks like an image in the manifests and is not needed.
	Waivers []Waiver `yaml:"waivers,omitempty"`
	// Denied name what must never be mirrored, whoever asks for it.
	Denied []Waiver `yaml:"denied,omitempty"`
	// Extras are images that no manifest names.
	Extras []Extra `yaml:"extras,omitempty"`
	// Optional are images that a user may do without.
	Optional []Optional `yaml:"optional,omitempty"`
	// Prune are the kinds of objects that go with an image of theirs that is left out: what
	// offers it to a user, who would wait for it for ever.
	Prune []string `yaml:"prune,omitempty"`
	// Substitutes are images that are not to be had under their own names.
	Substitutes []Substitute `yaml:"substitutes,omitempty"`
	// Secrets are what each node makes up for itself, in place of what upstream publishes.
	Secrets []bundle.Secret `yaml:"secrets,omitempty"`
	// Registries are settings that must name every registry that images of the appliance
	// have in their names.
	Registries []Registries `yaml:"registries,omitempty"`

	// FS is the stack's own folder: what the paths of Phases start at.
	FS fs.FS `yaml:"-"`
}

// Auth is a way to sign in.
type Auth struct {
	Name string `yaml:"name"`
	// Components are those that only this way has.
	Components []string `yaml:"components"`
}

// Phase is a part of a stack that must be ready before the next one is applied.
type Phase struct {
	Name string `yaml:"name"`
	// Components are folders with a kustomization.
	Components []string `yaml:"components,omitempty"`
	// Kinds are those of the objects that the phase takes: out of its components, or of
	// all if it has none. Other phases with these components have the rest.
	Kinds []string `yaml:"kinds,omitempty"`
	// Timeout bounds the phase, apply and wait together. It must leave room for
	// an emulated machine, which is some ten times slower than a real one.
	Timeout time.Duration `yaml:"timeout"`
}

// Waiver is an image reference that is left out of the appliance on purpose.
type Waiver struct {
	// Image is the reference's canonical form.
	Image string `yaml:"image"`
	// Reason says why the node can do without it.
	Reason string `yaml:"reason"`
}

// Extra is an image that no manifest names, as one that is compiled into a program.
type Extra struct {
	Image string `yaml:"image"`
	// Component is the one that needs it; without it the image is not needed.
	Component string `yaml:"component"`
	Reason    string `yaml:"reason"`
}

// Optional makes images optional. One that a pod of the stack runs stays required.
type Optional struct {
	// Images is a pattern of canonical references, in which "*" stands for anything.
	Images string `yaml:"images"`
	// Off leaves them out where the user does not ask for them.
	Off    bool   `yaml:"off,omitempty"`
	Reason string `yaml:"reason"`
}

// Substitute fetches an image under another name than that which manifests know it by.
type Substitute struct {
	Image  string `yaml:"image"`
	From   string `yaml:"from"`
	Reason string `yaml:"reason"`
}

// Registries is a key of a ConfigMap with registries, separated by commas. The registries of the
// appliance's images, those that a user adds among them, go behind what upstream has there.
type Registries struct {
	Namespace string `yaml:"namespace"`
	ConfigMap string `yaml:"configMap"`
	Key       string `yaml:"key"`
	Reason    string `yaml:"reason"`
}

// Names lists the stacks, sorted.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil // an embedded root always reads
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Load gives the stack of that name. An unknown name is an error that lists the known ones.
func Load(name string) (*Stack, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("no stack %q; there is %s", name, strings.Join(Names(), ", "))
	}
	dir, err := fs.Sub(files, name)
	if err != nil {
		return nil, fmt.Errorf("loading stack %q: %w", name, err)
	}
	s, err := parse(dir)
	if err != nil {
		return nil, fmt.Errorf("loading stack %q: %w", name, err)
	}
	if s.Name != name {
		return nil, fmt.Errorf("loading stack %q: stack.yaml says %q", name, s.Name)
	}
	return s, nil
}

// parse reads the stack in a folder: its stack.yaml, strictly.
func parse(dir fs.FS) (*Stack, error) {
	data, err := fs.ReadFile(dir, "stack.yaml")
	if err != nil {
		return nil, err
	}
	if err := bounds.YAML(data); err != nil {
		return nil, fmt.Errorf("parsing stack.yaml: %w", err)
	}
	s := Stack{FS: dir}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("parsing stack.yaml: %w", err)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("checking stack.yaml: %w", err)
	}
	return &s, nil
}

// check finds every mistake that the format's types allow.
func (s *Stack) check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Name == "" || len(s.Phases) == 0 {
		fail("a stack needs a name and phases")
	}
	known := map[string]bool{}
	for _, c := range s.Components() {
		known[c] = true
		if info, err := fs.Stat(s.FS, c); err != nil || !info.IsDir() {
			fail("component %q is no folder of the stack", c)
		}
	}
	s.checkPhases(fail)
	for _, a := range s.Auth {
		for _, c := range a.Components {
			if !known[c] {
				fail("auth %q: component %q is in no phase", a.Name, c)
			}
		}
	}
	for _, w := range append(slices.Clone(s.Waivers), s.Denied...) {
		if w.Image == "" || w.Reason == "" {
			fail("waiver %q: needs an image and a reason", w.Image)
		}
	}
	for _, e := range s.Extras {
		if e.Image == "" || e.Reason == "" || !known[e.Component] {
			fail("extra %q: needs an image, a component and a reason", e.Image)
		}
	}
	for _, o := range s.Optional {
		if o.Images == "" || o.Reason == "" {
			fail("optional %q: needs images and a reason", o.Images)
		}
	}
	for _, t := range s.Substitutes {
		if t.Image == "" || t.From == "" || t.Reason == "" {
			fail("substitute %q: needs an image, where it is from, and a reason", t.Image)
		}
	}
	for _, r := range s.Registries {
		if r.Namespace == "" || r.ConfigMap == "" || r.Key == "" || r.Reason == "" {
			fail("registries of %q: needs a namespace, a configMap, a key and a reason", r.ConfigMap)
		}
	}
	for _, src := range s.Sources {
		if src.Name == "" || (src.Repository == "") == (src.URL == "") || src.Repository != "" && src.Ref == "" {
			fail("source %q: needs a name, and a repository with a ref, or a URL", src.Name)
		}
	}
	return errors.Join(errs...)
}

func (s *Stack) checkPhases(fail func(string, ...any)) {
	seen := map[string]bool{}
	whole := map[string]string{}
	for _, p := range s.Phases {
		if p.Name == "" || seen[p.Name] {
			fail("phase %q: name is empty or taken", p.Name)
		}
		seen[p.Name] = true
		if p.Timeout <= 0 {
			fail("phase %q: timeout is missing", p.Name)
		}
		if len(p.Components) == 0 && len(p.Kinds) == 0 {
			fail("phase %q: no components and no kinds", p.Name)
		}
		if len(p.Kinds) > 0 {
			continue
		}
		for _, c := range p.Components {
			if whole[c] != "" {
				fail("phase %q: component %q is in phase %q already", p.Name, c, whole[c])
			}
			whole[c] = p.Name
		}
	}
	for _, p := range s.Phases {
		for _, c := range p.Components {
			if whole[c] == "" {
				fail("phase %q: no phase takes the rest of component %q", p.Name, c)
			}
		}
	}
}

// Components lists every component, in the order of the phases.
func (s *Stack) Components() []string {
	var out []string
	seen := map[string]bool{}
	for _, p := range s.Phases {
		for _, c := range p.Components {
			if !seen[c] {
				seen[c] = true
				out = append(out, c)
			}
		}
	}
	return out
}

// Choose gives the components of one way to sign in (the first if auth is empty), but
// for those that are left out, in the order of the phases.
func (s *Stack) Choose(auth string, without []string) ([]string, error) {
	all := s.Components()
	if auth == "" && len(s.Auth) > 0 {
		auth = s.Auth[0].Name
	}
	left := map[string]bool{}
	var ways []string
	for _, a := range s.Auth {
		ways = append(ways, a.Name)
		for _, c := range a.Components {
			left[c] = left[c] || a.Name != auth
		}
	}
	if auth != "" && !slices.Contains(ways, auth) {
		return nil, fmt.Errorf("stack %q has no auth %q; it has %s", s.Name, auth, cmp.Or(strings.Join(ways, ", "), "none"))
	}
	for _, c := range without {
		if !slices.Contains(all, c) {
			return nil, fmt.Errorf("stack %q has no component %q to go without; it has %s", s.Name, c, strings.Join(all, ", "))
		}
		left[c] = true
	}
	return slices.DeleteFunc(all, func(c string) bool { return left[c] }), nil
}
