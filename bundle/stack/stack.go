// Package stack holds the stacks that atoll knows, as data: kustomizations, the
// phases they are installed in, and rules about their images. A stack is compiled
// into atoll, so one atoll always renders the same manifests.
package stack

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

//go:embed lab
var files embed.FS

// Stack is a set of Kubernetes objects that is installed as one.
type Stack struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description"`
	// Phases are installed in this order.
	Phases []Phase `yaml:"phases"`
	// Waivers name what looks like an image in the manifests and is not needed.
	Waivers []Waiver `yaml:"waivers,omitempty"`

	// FS is the stack's own folder: what the paths of Phases start at.
	FS fs.FS `yaml:"-"`
}

// Phase is a part of a stack that must be ready before the next one is applied.
type Phase struct {
	Name string `yaml:"name"`
	// Components are folders with a kustomization.
	Components []string `yaml:"components"`
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
	if s.Name == "" || len(s.Phases) == 0 {
		errs = append(errs, errors.New("a stack needs a name and phases"))
	}
	seen := map[string]bool{}
	for _, p := range s.Phases {
		if p.Name == "" || seen[p.Name] {
			errs = append(errs, fmt.Errorf("phase %q: name is empty or taken", p.Name))
		}
		seen[p.Name] = true
		if p.Timeout <= 0 {
			errs = append(errs, fmt.Errorf("phase %q: timeout is missing", p.Name))
		}
		if len(p.Components) == 0 {
			errs = append(errs, fmt.Errorf("phase %q: no components", p.Name))
		}
		for _, c := range p.Components {
			if info, err := fs.Stat(s.FS, c); err != nil || !info.IsDir() {
				errs = append(errs, fmt.Errorf("phase %q: component %q is no folder of the stack", p.Name, c))
			}
		}
	}
	for _, w := range s.Waivers {
		if w.Image == "" || w.Reason == "" {
			errs = append(errs, fmt.Errorf("waiver %q: needs an image and a reason", w.Image))
		}
	}
	return errors.Join(errs...)
}
