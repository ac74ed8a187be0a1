package bundle

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"

	jsonschema "github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"

	"atoll/bundle/bounds"
)

// Schema is the JSON Schema of the definition. It is generated from [Definition]
// by "go test ./bundle -run TestSchema -update".
//
//go:embed appliance.schema.json
var Schema []byte

// A DefinitionError is one mistake in a definition.
type DefinitionError struct {
	File string // name of the definition
	Line int    // line it is on, from 1
	Path string // field, like host.users[0].name; empty for the whole file
	Msg  string
	Err  error // what it is, where that is more than a mistake in writing; may be nil
}

func (e *DefinitionError) Unwrap() error { return e.Err }

func (e *DefinitionError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
	}
	return fmt.Sprintf("%s:%d: %s: %s", e.File, e.Line, e.Path, e.Msg)
}

// ReadDefinition parses the file at path; relative paths in it start at its folder.
func ReadDefinition(path string) (*Definition, error) {
	f, err := OpenRegular(path)
	if err != nil {
		return nil, fmt.Errorf("reading definition: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, bounds.Definition+1))
	if err != nil {
		return nil, fmt.Errorf("reading definition: %w", err)
	}
	return ParseDefinition(path, data)
}

// ParseDefinition parses a definition strictly. The name is used in errors, and
// its folder is where relative paths start. All mistakes are reported at once, as
// joined [DefinitionError]s in the order of their lines.
func ParseDefinition(name string, data []byte) (*Definition, error) {
	if len(data) > bounds.Definition {
		return nil, &DefinitionError{File: name, Line: 1, Msg: fmt.Sprintf("definition is larger than %d bytes", bounds.Definition)}
	}
	var bound *bounds.Error
	if errors.As(bounds.YAML(data), &bound) {
		return nil, &DefinitionError{File: name, Line: max(bound.Line, 1), Msg: (&bounds.Error{What: bound.What, Limit: bound.Limit}).Error()}
	}
	root, err := parseYAML(name, data)
	if err != nil {
		return nil, err
	}
	p := &parser{name: name, nodes: map[string]*yaml.Node{}}
	tree := p.value("", root, 0)
	if len(p.errs) == 0 {
		p.validate(tree)
	}
	var d Definition
	if len(p.errs) == 0 {
		if err := root.Decode(&d); err != nil {
			return nil, fmt.Errorf("parsing %s: %w", name, err)
		}
		d.dir = filepath.Dir(name)
		d.setDefaults()
		p.check(&d)
	}
	if len(p.errs) > 0 {
		sort.SliceStable(p.errs, func(i, j int) bool { return p.errs[i].Line < p.errs[j].Line })
		errs := make([]error, len(p.errs))
		for i, e := range p.errs {
			errs[i] = e
		}
		return nil, errors.Join(errs...)
	}
	return &d, nil
}

// parseYAML reads exactly one document.
func parseYAML(name string, data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	switch err := dec.Decode(&doc); {
	case err == io.EOF:
		return nil, &DefinitionError{File: name, Line: 1, Msg: "definition is empty"}
	case err != nil:
		return nil, fmt.Errorf("parsing %s: %w", name, err)
	}
	switch err := dec.Decode(&next); {
	case err == nil:
		return nil, &DefinitionError{File: name, Line: next.Line, Msg: "definition has a second YAML document"}
	case err != io.EOF:
		return nil, fmt.Errorf("parsing %s: %w", name, err)
	}
	return doc.Content[0], nil
}

// parser collects the mistakes of one definition.
type parser struct {
	name  string
	nodes map[string]*yaml.Node // by JSON pointer; a key's node where its value is unknown
	errs  []*DefinitionError
}

func (p *parser) fail(pointer, format string, args ...any) {
	line := 1
	for at := pointer; ; at = at[:strings.LastIndexByte(at, '/')] {
		if n, ok := p.nodes[at]; ok {
			line = n.Line
			break
		}
		if at == "" {
			break
		}
	}
	p.errs = append(p.errs, &DefinitionError{File: p.name, Line: line, Path: fieldPath(pointer), Msg: fmt.Sprintf(format, args...)})
}

// value turns a node into what a JSON decoder would give and remembers where each
// part stands. Anchors and merge keys have no use here and are refused, which
// also keeps a small file from growing large.
func (p *parser) value(pointer string, n *yaml.Node, depth int) any {
	p.nodes[pointer] = n
	if depth > 32 {
		p.fail(pointer, "nested too deeply")
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			at := pointer + "/" + key.Value
			p.nodes[at] = key
			if _, twice := m[key.Value]; twice {
				p.fail(at, "field is given twice")
			}
			m[key.Value] = p.value(at, n.Content[i+1], depth+1)
		}
		return m
	case yaml.SequenceNode:
		s := make([]any, 0, len(n.Content))
		for i, c := range n.Content {
			s = append(s, p.value(pointer+"/"+strconv.Itoa(i), c, depth+1))
		}
		return s
	case yaml.ScalarNode:
		return p.scalar(pointer, n)
	default:
		p.fail(pointer, "aliases are not allowed here")
		return nil
	}
}

func (p *parser) scalar(pointer string, n *yaml.Node) any {
	switch n.Tag {
	case "!!null":
		return nil
	case "!!int", "!!float":
		return json.Number(n.Value)
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			p.fail(pointer, "%v", err)
		}
		return b
	default:
		return n.Value
	}
}

// validate holds the tree against the schema and turns each violation into a
// mistake with a line.
func (p *parser) validate(tree any) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		panic(err) // the schema is part of the program, and a test reads it
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("appliance.schema.json", doc); err != nil {
		panic(err)
	}
	sch, err := c.Compile("appliance.schema.json")
	if err != nil {
		panic(err)
	}
	var invalid *jsonschema.ValidationError
	if errors.As(sch.Validate(tree), &invalid) {
		p.unknown(invalid)
	}
	// A field without a value is one that is not there: "host:" above commented lines. But
	// it must be a field.
	if errors.As(sch.Validate(withoutNulls(tree)), &invalid) {
		p.collect(invalid)
	}
}

// withoutNulls returns the tree without the fields that have no value.
func withoutNulls(tree any) any {
	switch tree := tree.(type) {
	case map[string]any:
		m := make(map[string]any, len(tree))
		for key, v := range tree {
			if v != nil {
				m[key] = withoutNulls(v)
			}
		}
		return m
	case []any:
		s := make([]any, len(tree))
		for i, v := range tree {
			s[i] = withoutNulls(v)
		}
		return s
	}
	return tree
}

// pointer is where in the definition a violation is.
func pointer(e *jsonschema.ValidationError) string {
	at := ""
	for _, part := range e.InstanceLocation {
		at += "/" + part
	}
	return at
}

// unknown collects fields that there are not.
func (p *parser) unknown(e *jsonschema.ValidationError) {
	if k, ok := e.ErrorKind.(*kind.AdditionalProperties); ok {
		for _, name := range k.Properties {
			p.fail(pointer(e)+"/"+name, "unknown field")
		}
	}
	for _, cause := range e.Causes {
		p.unknown(cause)
	}
}

// collect collects all other violations.
func (p *parser) collect(e *jsonschema.ValidationError) {
	at := pointer(e)
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		p.fail(at, "missing field %s", strings.Join(k.Missing, ", "))
	case *kind.Type:
		p.fail(at, "is %s, want %s", k.Got, strings.Join(k.Want, " or "))
	case *kind.Enum:
		p.fail(at, "%q is none of %v", k.Got, k.Want)
	case *kind.Pattern:
		if at == k3sVersion {
			p.checkVersion(k.Got)
			break
		}
		p.fail(at, "%q does not match %s", k.Got, k.Want)
	case *kind.MaxLength:
		p.fail(at, "is %d characters long, at most %d are allowed", k.Got, k.Want)
	case *kind.Minimum:
		p.fail(at, "%s is less than %s", k.Got.RatString(), k.Want.RatString())
	case *kind.Maximum:
		p.fail(at, "%s is more than %s", k.Got.RatString(), k.Want.RatString())
	case *kind.UniqueItems:
		p.fail(at, "items %d and %d are the same", k.Duplicates[0], k.Duplicates[1])
	}
	for _, cause := range e.Causes {
		p.collect(cause)
	}
}

// k3sVersion is the pointer to the version of k3s.
const k3sVersion = "/k3s/version"

var (
	// release is how releases of k3s are tagged: a release, a build of a commit, or one's
	// own build, as v1.34.4+lab1.
	release = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z]+([.-][0-9A-Za-z]+)*)?\+(k3s-[0-9a-f]{8}|[a-z][0-9a-z.-]*[0-9])$`)
	// halfRelease is what people write in its place: the tag of an image or of Kubernetes,
	// a part of a URL.
	halfRelease = regexp.MustCompile(`(?i)^(?:k3s)?[-_ :@]*v?[. ]?([0-9]+\.[0-9]+\.[0-9]+)(?:[-_. +~]*((?:alpha|beta|rc)[.-]?[0-9]+))?(?:[-_. +~]|%2B)*(?:k3s?[-_.]?([0-9]*))?$`)
)

// checkVersion tells of a version that no release of k3s can have, and the nearest that one has.
func (p *parser) checkVersion(v string) {
	if release.MatchString(v) && !strings.HasSuffix(v, "+k3") {
		return
	}
	m := halfRelease.FindStringSubmatch(strings.TrimSpace(v))
	if m == nil {
		p.fail(k3sVersion, "%q is no version of k3s, which is like v1.34.4+k3s1", v)
		return
	}
	if m[2] != "" {
		m[2] = "-" + strings.ToLower(m[2])
	}
	p.fail(k3sVersion, "%q is no version of k3s: did you mean v%s%s+k3s%s?", v, m[1], m[2], cmp.Or(m[3], "1"))
}

// login matches the user and password of a URL, and its host.
var login = regexp.MustCompile(`://[^/\s]*@([^/?#\s]*)`)

// check finds what a schema cannot say.
func (p *parser) check(d *Definition) {
	p.checkVersion(d.K3s.Version)
	if m := login.FindStringSubmatch(d.K3s.Release); m != nil {
		p.fail("/k3s/release", "credentials do not go into the URL, which the lock repeats: put \"username\" and \"password\" for %q under \"auths\" in docker's config.json", m[1])
	}
	for i, s := range d.Base.Sources {
		if _, err := ParseAptSource(s); err != nil {
			p.fail(fmt.Sprintf("/base/sources/%d", i), "%v", err)
			p.errs[len(p.errs)-1].Err = err
		}
	}
	for i, s := range d.Base.Packages {
		if !IsPackageName(s) {
			p.fail(fmt.Sprintf("/base/packages/%d", i), "%q is not the name of a Debian package", s)
		}
	}
	for i, s := range d.Images {
		if _, err := CanonicalReference(s); err != nil {
			p.fail(fmt.Sprintf("/images/%d", i), "%v", errors.Unwrap(err))
		}
	}
	seen := map[string]bool{}
	for i, u := range d.Host.Users {
		at := fmt.Sprintf("/host/users/%d/name", i)
		if u.Name == "root" {
			p.fail(at, "root is not for login: name another user and set sudo: true")
		}
		if seen[u.Name] {
			p.fail(at, "user %q is given twice", u.Name)
		}
		seen[u.Name] = true
	}
	n := d.Host.Network
	for i, a := range n.Addresses {
		if _, err := netip.ParsePrefix(a); err != nil {
			p.fail(fmt.Sprintf("/host/network/addresses/%d", i), "%q is not an address in CIDR notation like 192.0.2.7/24", a)
		}
	}
	if len(n.Addresses) > 0 && n.Interface == "" {
		p.fail("/host/network", "addresses need an interface")
	}
	if n.Gateway != "" {
		if _, err := netip.ParseAddr(n.Gateway); err != nil {
			p.fail("/host/network/gateway", "%q is not an IP address", n.Gateway)
		}
	}
	for i, a := range n.DNS {
		if _, err := netip.ParseAddr(a); err != nil {
			p.fail(fmt.Sprintf("/host/network/dns/%d", i), "%q is not an IP address", a)
		}
	}
}

// fieldPath writes a JSON pointer the way people write fields: a.b[0].c.
func fieldPath(pointer string) string {
	var b strings.Builder
	for _, part := range strings.Split(strings.TrimPrefix(pointer, "/"), "/") {
		if _, err := strconv.Atoi(part); err == nil {
			b.WriteString("[" + part + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(part)
	}
	return b.String()
}
