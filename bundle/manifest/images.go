package manifest

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// Image is a container image that objects need.
type Image struct {
	// Reference is the canonical name.
	Reference string `json:"reference"`
	// Tier is [bundle.TierRequired] if a pod that is installed runs the image, else
	// [bundle.TierRuntime], or [bundle.TierOptional] if the stack says so.
	Tier string `json:"tier"`
	// From is the name to fetch it by, if that is another one.
	From string `json:"from,omitempty"`
	// Omitted says why the appliance does not get it; empty if it does.
	Omitted string `json:"omitted,omitempty"`
	// Where has every place, sorted.
	Where []Place `json:"where"`
}

// MadeOnNode is why an image of the node's own registry is omitted: somebody pushes it there.
const MadeOnNode = "made on the node"

// madeOnNode tells whether the image is one of the node's own registry.
func (i Image) madeOnNode() bool { return strings.HasPrefix(i.Reference, bundle.NodeRegistry+"/") }

// upstream is the name at home of an image of the bundle that is named by the node's
// registry, which has it below its host: registry.atoll.svc.cluster.local/docker.io/library/python:3.
// All others are what they are.
func upstream(ref string) string {
	rest, ok := strings.CutPrefix(ref, bundle.NodeRegistry+"/")
	rest = strings.TrimPrefix(rest, bundle.BundlePrefix+"/")
	host, _, hosted := strings.Cut(rest, "/")
	if !ok || !hosted || !strings.ContainsAny(host, ".:") { // no namespace has them
		return ref
	}
	if name, err := bundle.CanonicalReference(rest); err == nil {
		return name
	}
	return ref
}

// Place is where an image is named.
type Place struct {
	Component string `json:"component"` // a kustomization's folder, or a file
	Object    string `json:"object"`    // kind, namespace and name
	Field     string `json:"field"`     // " > " leads into YAML or JSON in a string
	Shape     string `json:"shape"`
	Rule      string `json:"rule,omitempty"` // that composed the reference
}

func (p Place) String() string {
	s := p.Component + ": " + strings.TrimSpace(p.Object+" "+p.Field)
	if p.Rule != "" {
		s += " (" + p.Rule + ")"
	}
	return s
}

// Shapes of a place.
const (
	ShapePod       = "pod"       // a container's image, or an image volume's, in a pod that is installed
	ShapeContainer = "container" // the same in a list of containers or volumes elsewhere
	ShapeField     = "field"     // a field or variable that is called image
	ShapeText      = "text"      // a string, or a part of one
	ShapeComposed  = "composed"  // of several fields, by a rule
	ShapeExtra     = "extra"     // in no manifest; the stack or the user says so
)

// Doubt is what looks like an image and is no reference that could be mirrored, or what
// shows that a rule is out of date.
type Doubt struct {
	Text  string `json:"text"`
	Place Place  `json:"place"`
}

func (d Doubt) String() string { return fmt.Sprintf("%s: %q is no image's full name", d.Place, d.Text) }

// Findings are what [Images] finds, sorted.
type Findings struct {
	Images []Image
	Doubts []Doubt
}

// Images finds every image that the objects name: in pod specs, and wherever else a
// string holds a reference, be it an argument, an environment variable, a custom
// resource, or YAML or JSON inside a string; and those that rules compose. What it cannot
// tell is a [Doubt], as is a pod's image that is no reference.
func Images(objs []Object) (*Findings, error) {
	f := finder{objects: objs, found: map[string]*found{}, named: map[string]map[string]any{}, budget: bounds.Visits}
	var errs []error
	for _, o := range objs {
		if err := f.object(o); err != nil {
			errs = append(errs, fmt.Errorf("finding images: %s: %s: %w", o.Source, o.id(), err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	out := &Findings{Doubts: slices.Compact(slices.SortedFunc(slices.Values(f.doubts), compareDoubts))}
	for _, ref := range slices.Sorted(maps.Keys(f.found)) {
		p := f.found[ref]
		im := Image{Reference: ref, Tier: p.tier, Where: slices.SortedFunc(maps.Keys(p.where), comparePlaces)}
		if im.madeOnNode() {
			im.Omitted = MadeOnNode
		}
		out.Images = append(out.Images, im)
	}
	return out, nil
}

func comparePlaces(a, b Place) int { return cmp.Compare(a.String(), b.String()) }
func compareDoubts(a, b Doubt) int { return comparePlaces(a.Place, b.Place) }

// podSpecs tells where a built-in kind holds its pod's spec.
var podSpecs = map[string]string{
	"Pod":                   "spec",
	"PodTemplate":           "template.spec",
	"ReplicationController": "spec.template.spec",
	"ReplicaSet":            "spec.template.spec",
	"Deployment":            "spec.template.spec",
	"StatefulSet":           "spec.template.spec",
	"DaemonSet":             "spec.template.spec",
	"Job":                   "spec.template.spec",
	"CronJob":               "spec.jobTemplate.spec.template.spec",
}

// finder collects references while it walks objects.
type finder struct {
	objects []Object // all, for rules that need two
	found   map[string]*found
	doubts  []Doubt
	budget  int                       // values that may still be visited
	places  int                       // of images and doubts, so far
	named   map[string]map[string]any // objects that rules have looked up, by their globs

	// Of the object that is walked:
	component string
	list      string // the object's path in a list
	name      string
	rules     []*rule
	used      map[pathID]bool // paths that a rule has taken
	podSpec   string          // path of its pod's spec; empty if it has none
	secret    bool            // strings under data are base64
	crd       bool            // only defaults count: the rest is documentation
}

// found is what is known of one reference.
type found struct {
	tier  string
	where map[Place]bool
}

func (f *finder) object(o Object) error {
	kind, _ := o.Value["kind"].(string)
	api, _ := o.Value["apiVersion"].(string)
	f.component, f.list, f.name = o.Source, o.Path, o.name()
	f.rules, f.used = rulesOf(f.name), map[pathID]bool{}
	f.podSpec = ""
	if api == "v1" || strings.HasPrefix(api, "apps/") || strings.HasPrefix(api, "batch/") {
		f.podSpec = podSpecs[kind]
	}
	f.secret = kind == "Secret" && api == "v1"
	f.crd = kind == "CustomResourceDefinition"
	return f.walk(o.Value, node{})
}

// name is kind, namespace and name; empty for what is no Kubernetes object.
func (o Object) name() string {
	api, _ := o.Value["apiVersion"].(string)
	return strings.TrimSpace(strings.TrimPrefix(o.id(), api+" "))
}

// node is a position in an object.
type node struct {
	path   *fieldPath
	key    string // the nearest key
	depth  int
	nested int  // how many strings it is inside of
	inside bool // in the default of a CRD
}

func (n node) child(key string) node {
	n.depth++
	n.key = key
	n.path = n.path.key(key)
	n.inside = n.inside || key == "default"
	return n
}

func (n node) item(i int) node {
	n.depth++
	n.path = n.path.item(i)
	return n
}

// walk visits a value and all below it.
func (f *finder) walk(v any, n node) error {
	if f.budget--; f.budget < 0 {
		return &bounds.Error{What: "values", Limit: bounds.Visits}
	}
	if f.places > bounds.Places || len(f.used) > bounds.Places {
		return &bounds.Error{What: "places that name an image", Limit: bounds.Places}
	}
	if n.depth > bounds.Depth {
		return &bounds.Error{What: "levels", Limit: bounds.Depth}
	}
	if n.path != nil && n.path.size > bounds.PathBytes {
		return &bounds.Error{What: "bytes in the path of a value", Limit: bounds.PathBytes}
	}
	switch v := v.(type) {
	case map[string]any:
		return f.mapping(v, n)
	case map[any]any: // YAML in a string, with keys that are numbers and the like
		m := make(map[string]any, len(v))
		for k, val := range v {
			m[fmt.Sprint(k)] = val
		}
		return f.mapping(m, n)
	case []any:
		for i, item := range v {
			if err := f.walk(item, n.item(i)); err != nil {
				return err
			}
		}
	case string:
		return f.text(v, n)
	}
	return nil
}

func (f *finder) mapping(m map[string]any, n node) error {
	if !f.crd || n.inside {
		f.compose(m, n)
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		child := n.child(key)
		if name, ok := m["name"].(string); ok && key == "value" {
			child.key = name // an environment variable, or something like one
		}
		f.certain(key, m[key], child)
		if err := f.walk(m[key], child); err != nil {
			return err
		}
	}
	return nil
}

// certain takes the fields that are images by their schema: those of containers,
// wherever a list of containers is found, and of image volumes.
func (f *finder) certain(key string, v any, n node) {
	var field func(map[string]any) (v any, path []string)
	switch key {
	case "containers", "initContainers", "ephemeralContainers":
		field = func(m map[string]any) (any, []string) { return m["image"], []string{"image"} }
	case "volumes":
		field = func(m map[string]any) (any, []string) {
			image, _ := m["image"].(map[string]any)
			return image["reference"], []string{"image", "reference"}
		}
	default:
		return
	}
	list, _ := v.([]any)
	for i, item := range list {
		m, _ := item.(map[string]any)
		v, path := field(m)
		ref, _ := v.(string)
		if ref == "" || f.crd && !n.inside {
			continue
		}
		at := below(n.item(i), path)
		f.used[at.path.id] = true
		inPod := f.podSpec != "" && n.nested == 0 && n.path.is(f.podSpec+"."+key)
		f.image(ref, at, inPod)
	}
}

// image adds what must be an image. Outside of a pod's spec it may be a template's
// placeholder, which is passed over.
func (f *finder) image(ref string, n node, inPod bool) {
	name, err := bundle.CanonicalReference(ref)
	switch {
	case err == nil && inPod:
		f.add(name, bundle.TierRequired, n, ShapePod, "")
	case err == nil:
		f.add(name, bundle.TierRuntime, n, ShapeContainer, "")
	case inPod:
		f.doubt(ref, n, "")
	}
}

// text looks into a string: structure if it has some, else references.
func (f *finder) text(s string, n node) error {
	if f.crd && !n.inside {
		return nil
	}
	if f.secret && n.nested == 0 && n.path.first() == "data" {
		data, err := base64.StdEncoding.DecodeString(s)
		if err != nil || !utf8.Valid(data) {
			return nil
		}
		s = string(data)
	}
	if docs := structure(s); docs != nil {
		if n.nested++; n.nested > bounds.Nested {
			return fmt.Errorf("%s: YAML in strings is nested more than %d times", n.path, bounds.Nested)
		}
		n.path = n.path.add("", intoString)
		for _, doc := range docs {
			if err := f.walk(doc, n); err != nil {
				return err
			}
		}
		return nil
	}
	f.composeText(s, n)
	if f.used[n.path.id] || f.field(s, n) {
		return nil
	}
	for _, ref := range references(s) {
		f.add(ref, bundle.TierRuntime, n, ShapeText, "")
	}
	return nil
}

// imageKey is the name of a field or variable that holds an image.
var imageKey = regexp.MustCompile(`(?i)(^|[a-z_.-])image$`)

// field takes the value of a field that is called image, as far as it is a name. A name
// without tag and host is taken for an image only where the field is called just so: a
// background image is another thing.
func (f *finder) field(s string, n node) bool {
	if !imageKey.MatchString(n.key) {
		return false
	}
	name, err := bundle.CanonicalReference(s)
	if err != nil {
		return false // a template, a URL, a sentence
	}
	host, _, hosted := strings.Cut(s, "/")
	switch {
	case n.key == "image" && strings.ContainsAny(s, "/:@"), hosted && strings.ContainsAny(host, ".:"), len(references(s)) > 0:
		f.add(name, bundle.TierRuntime, n, ShapeField, "")
	default:
		f.doubt(s, n, "")
	}
	return true
}

func (f *finder) place(n node, shape, rule string) Place {
	return Place{Component: f.component, Object: f.name, Field: f.list + strings.TrimSuffix(n.path.String(), intoString), Shape: shape, Rule: rule}
}

func (f *finder) doubt(text string, n node, rule string) {
	f.places++
	f.doubts = append(f.doubts, Doubt{Text: text, Place: f.place(n, ShapeField, rule)})
}

func (f *finder) add(ref, tier string, n node, shape, rule string) {
	ref = upstream(ref)
	p := f.found[ref]
	if p == nil {
		p = &found{tier: tier, where: map[Place]bool{}}
		f.found[ref] = p
	}
	if tier == bundle.TierRequired {
		p.tier = tier
	}
	if at := f.place(n, shape, rule); !p.where[at] {
		p.where[at] = true
		f.places++
	}
}
