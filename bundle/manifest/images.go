package manifest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"atoll/bundle"
)

// maxNested bounds YAML in strings in YAML in strings. Katib's trial templates have two levels.
const maxNested = 4

// Image is a container image that objects need.
type Image struct {
	// Reference is the canonical name.
	Reference string
	// Tier is [bundle.TierRequired] if a pod that is installed runs the image, else
	// [bundle.TierRuntime].
	Tier string
	// Where has one line per place: source, object, field. Sorted.
	Where []string
}

// Images finds every image that the objects name: in pod specs, and wherever else a
// string holds a reference, be it an argument, an environment variable, a custom
// resource, or YAML or JSON inside a string. References in waive (canonical names)
// are left out; one that is not found at all is an error, since it is out of date.
// So is a pod's image that is no reference. The result is sorted by reference.
func Images(objs []Object, waive []string) ([]Image, error) {
	f := finder{found: map[string]*place{}, budget: 5 * maxNodes}
	var errs []error
	for _, o := range objs {
		if err := f.object(o); err != nil {
			errs = append(errs, fmt.Errorf("finding images: %s: %s: %w", o.Source, o.id(), err))
		}
	}
	for _, w := range waive {
		if f.found[w] == nil {
			errs = append(errs, fmt.Errorf("finding images: waived image %q is not in any manifest", w))
		}
		delete(f.found, w)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var images []Image
	for _, ref := range slices.Sorted(maps.Keys(f.found)) {
		p := f.found[ref]
		images = append(images, Image{Reference: ref, Tier: p.tier, Where: slices.Sorted(maps.Keys(p.where))})
	}
	return images, nil
}

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
	found  map[string]*place
	budget int // nodes that may still be visited

	// Of the object that is walked:
	label   string // source and object, the head of a where-line
	podSpec string // path of its pod's spec; empty if it has none
	secret  bool   // strings under data are base64
	crd     bool   // only defaults count: the rest is documentation
}

// place is what is known of one reference.
type place struct {
	tier  string
	where map[string]bool
}

func (f *finder) object(o Object) error {
	kind, _ := o.Value["kind"].(string)
	api, _ := o.Value["apiVersion"].(string)
	f.label = o.Source + ": " + strings.TrimPrefix(o.id(), api+" ")
	f.podSpec = ""
	if api == "v1" || strings.HasPrefix(api, "apps/") || strings.HasPrefix(api, "batch/") {
		f.podSpec = podSpecs[kind]
	}
	f.secret = kind == "Secret" && api == "v1"
	f.crd = kind == "CustomResourceDefinition"
	return f.walk(o.Value, node{})
}

// node is a position in an object.
type node struct {
	path   string
	key    string // the nearest key
	depth  int
	nested int  // how many strings it is inside of
	inside bool // in the default of a CRD
}

func (n node) child(key string) node {
	n.depth++
	n.key = key
	switch {
	case strings.ContainsAny(key, `./" `):
		n.path += fmt.Sprintf("[%q]", key)
	case n.path == "" || strings.HasSuffix(n.path, "> "):
		n.path += key
	default:
		n.path += "." + key
	}
	n.inside = n.inside || key == "default"
	return n
}

func (n node) item(i int) node {
	n.depth++
	n.path += fmt.Sprintf("[%d]", i)
	return n
}

// walk visits a value and all below it.
func (f *finder) walk(v any, n node) error {
	if f.budget--; f.budget < 0 {
		return errors.New("manifests are too large")
	}
	if n.depth > maxDepth {
		return fmt.Errorf("more than %d levels deep", maxDepth)
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
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if err := f.certain(key, m[key], n.child(key)); err != nil {
			return err
		}
		if err := f.walk(m[key], n.child(key)); err != nil {
			return err
		}
	}
	return nil
}

// certain takes the fields that are images by their schema: those of containers,
// wherever a list of containers is found, and of image volumes.
func (f *finder) certain(key string, v any, n node) error {
	var field func(map[string]any) (any, string)
	switch key {
	case "containers", "initContainers", "ephemeralContainers":
		field = func(m map[string]any) (any, string) { return m["image"], "image" }
	case "volumes":
		field = func(m map[string]any) (any, string) {
			image, _ := m["image"].(map[string]any)
			return image["reference"], "image.reference"
		}
	default:
		return nil
	}
	list, _ := v.([]any)
	for i, item := range list {
		m, _ := item.(map[string]any)
		v, name := field(m)
		ref, _ := v.(string)
		if ref == "" || f.crd && !n.inside {
			continue
		}
		at := n.item(i)
		at.path += "." + name
		inPod := f.podSpec != "" && n.nested == 0 && n.path == f.podSpec+"."+key
		if err := f.image(ref, at, inPod); err != nil {
			return err
		}
	}
	return nil
}

// image adds what must be an image. Outside of a pod's spec it may be a template's
// placeholder, which is passed over.
func (f *finder) image(ref string, n node, inPod bool) error {
	name, err := bundle.CanonicalReference(ref)
	switch {
	case err == nil && inPod:
		f.add(name, bundle.TierRequired, n)
	case err == nil:
		f.add(name, bundle.TierRuntime, n)
	case inPod:
		return fmt.Errorf("%s: %w", n.path, err)
	}
	return nil
}

// text looks into a string: structure if it has some, else references.
func (f *finder) text(s string, n node) error {
	if f.crd && !n.inside {
		return nil
	}
	if f.secret && n.nested == 0 && strings.HasPrefix(n.path, "data") {
		data, err := base64.StdEncoding.DecodeString(s)
		if err != nil || !utf8.Valid(data) {
			return nil
		}
		s = string(data)
	}
	if docs := structure(s); docs != nil {
		if n.nested++; n.nested > maxNested {
			return fmt.Errorf("%s: YAML in strings is nested more than %d times", n.path, maxNested)
		}
		n.path += " > "
		for _, doc := range docs {
			if err := f.walk(doc, n); err != nil {
				return err
			}
		}
		return nil
	}
	if n.key == "image" && strings.ContainsAny(s, "/:@") {
		return f.image(s, n, false)
	}
	for _, ref := range references(s) {
		f.add(ref, bundle.TierRuntime, n)
	}
	return nil
}

func (f *finder) add(ref, tier string, n node) {
	p := f.found[ref]
	if p == nil {
		p = &place{tier: tier, where: map[string]bool{}}
		f.found[ref] = p
	}
	if tier == bundle.TierRequired {
		p.tier = tier
	}
	p.where[f.label+" "+n.path] = true
}
