package manifest

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"path"
	"regexp"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"atoll/bundle"
)

//go:embed rules.yaml
var rulesYAML []byte

// rule composes a reference of parts: see rules.yaml.
type rule struct {
	Name   string `yaml:"name"`
	Reason string `yaml:"reason"`
	// Object limits the rule to objects whose kind, namespace and name fit a glob.
	Object string `yaml:"object"`
	// Field limits the rule to one field, as a [Place] writes it; " >" at its end is the
	// root of the structure in a string. Without it the rule looks at every mapping.
	Field string `yaml:"field"`
	// When is a path without which the rule is not of use; not all versions have it.
	When string `yaml:"when"`
	// Match takes parts out of a field that is text, by the names of its groups.
	Match string `yaml:"match"`
	// Reference is the template.
	Reference string `yaml:"reference"`

	match  *regexp.Regexp
	groups []group
}

// group is a piece of a template.
type group struct {
	optional bool
	parts    []part
}

// part is a text and a path that follows it.
type part struct {
	text   string
	object string   // glob of another object that path is in
	path   []string // nil after the last
}

// rules are those of rules.yaml.
var rules = sync.OnceValue(func() []*rule {
	var list []*rule
	dec := yaml.NewDecoder(bytes.NewReader(rulesYAML))
	dec.KnownFields(true)
	if err := dec.Decode(&list); err != nil {
		panic(fmt.Sprintf("manifest: rules.yaml: %v", err)) // compiled in; a test reads it
	}
	for _, r := range list {
		if r.Match != "" {
			r.match = regexp.MustCompile(r.Match)
		}
		r.groups = template(r.Reference)
	}
	return list
})

var (
	brackets = regexp.MustCompile(`\[[^]]*\]`)
	braces   = regexp.MustCompile(`\{[^}]*\}`)
)

func template(s string) []group {
	var groups []group
	last := 0
	for _, at := range append(brackets.FindAllStringIndex(s, -1), []int{len(s), len(s)}) {
		groups = append(groups, group{parts: parts(s[last:at[0]])}, group{optional: true, parts: parts(strings.Trim(s[at[0]:at[1]], "[]"))})
		last = at[1]
	}
	return groups
}

func parts(s string) []part {
	var list []part
	last := 0
	for _, at := range braces.FindAllStringIndex(s, -1) {
		p := part{text: s[last:at[0]]}
		name := s[at[0]+1 : at[1]-1]
		if object, field, ok := strings.Cut(name, "#"); ok {
			p.object, name = object, field
		}
		p.path = strings.Split(name, ".")
		list, last = append(list, p), at[1]
	}
	return append(list, part{text: s[last:]})
}

// rulesOf gives the rules that may hold for an object.
func rulesOf(object string) []*rule {
	var fit []*rule
	for _, r := range rules() {
		if r.Object == "" || globs(r.Object, object) {
			fit = append(fit, r)
		}
	}
	return fit
}

// globs says whether an object, "Kind namespace/name" or "Kind name", fits a glob.
func globs(glob, object string) bool {
	if kind, name, ok := strings.Cut(object, " "); ok && !strings.Contains(name, "/") {
		object = kind + " /" + name
	}
	ok, err := path.Match(glob, object)
	return err == nil && ok
}

// compose applies the rules to a mapping, and notes what they use.
func (f *finder) compose(m map[string]any, n node) {
	for _, r := range f.rules {
		if r.match == nil && (r.Field == "" || n.path.is(r.Field)) {
			f.expand(r, m, n)
		}
	}
}

// composeText applies the rules that look into a text.
func (f *finder) composeText(s string, n node) {
	for _, r := range f.rules {
		if r.match == nil || !n.path.is(r.Field) {
			continue
		}
		found := r.match.FindStringSubmatch(s)
		if found == nil {
			f.doubt(r.Match, n, r.Name)
			continue
		}
		groups := map[string]any{}
		for i, name := range r.match.SubexpNames() {
			if name != "" {
				groups[name] = found[i]
			}
		}
		f.expand(r, groups, n)
	}
}

// expand composes one reference. A rule for one field that finds only some of its parts is
// out of date, which is a doubt; elsewhere it just does not hold.
func (f *finder) expand(r *rule, m map[string]any, n node) {
	if r.When != "" && scalar(at(m, strings.Split(r.When, "."))) == "" {
		return
	}
	var ref strings.Builder
	used := map[pathID]bool{}
	for _, g := range r.groups {
		text, missing := f.fill(g, m, n, used)
		switch {
		case missing == "":
			ref.WriteString(text)
		case g.optional:
		case r.Field == "" || len(used) == 0:
			return
		default:
			f.doubt(fmt.Sprintf("%s (no %s)", r.Reference, missing), n, r.Name)
			return
		}
	}
	name, err := bundle.CanonicalReference(ref.String())
	if err != nil {
		return
	}
	maps.Copy(f.used, used)
	f.add(name, bundle.TierRuntime, n, ShapeComposed, r.Name)
}

// fill gives a group's text, or the first path that is not there. The places of the paths
// that are go to used.
func (f *finder) fill(g group, m map[string]any, n node, used map[pathID]bool) (text, missing string) {
	var b strings.Builder
	for _, p := range g.parts {
		b.WriteString(p.text)
		if p.path == nil {
			continue
		}
		root := m
		if p.object != "" {
			root = f.lookup(p.object)
		}
		v := scalar(at(root, p.path))
		if v == "" {
			return "", strings.Join(p.path, ".")
		}
		b.WriteString(v)
		if p.object == "" {
			used[below(n, p.path).path.id] = true
		}
	}
	return b.String(), ""
}

// lookup gives the first object that fits a glob, or nil.
func (f *finder) lookup(glob string) map[string]any {
	if known, ok := f.named[glob]; ok {
		return known
	}
	f.named[glob] = nil
	for _, o := range f.objects {
		if globs(glob, o.name()) {
			f.named[glob] = o.Value
			break
		}
	}
	return f.named[glob]
}

// at follows a path of keys.
func at(v any, path []string) any {
	for _, key := range path {
		switch m := v.(type) {
		case map[string]any:
			v = m[key]
		case map[any]any:
			v = m[key]
		default:
			return nil
		}
	}
	return v
}

func below(n node, path []string) node {
	for _, key := range path {
		n = n.child(key)
	}
	return n
}

// scalar gives a string or a whole number as text. Of a number with a point nobody knows
// how it was written.
func scalar(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int, int64, uint64:
		return fmt.Sprint(v)
	}
	return ""
}
