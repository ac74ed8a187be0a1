package manifest

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"atoll/bundle"
)

// listedImage is a line of YAML that is one item of a list and nothing else.
var listedImage = regexp.MustCompile(`^\s*-\s+["']?([^\s"'#]+)["']?\s*(?:#.*)?$`)

// prune takes out what offers a user an image that is left out of the appliance and that
// would wait for it for ever: objects of the given kinds, and items of lists in texts of
// ConfigMaps, like the choice of notebooks. Objects are not changed in place.
func prune(objs []Object, found *Findings, kinds []string) []Object {
	omitted := map[string]bool{}
	touched := map[string]bool{} // objects that name one
	for _, im := range found.Images {
		if im.Omitted == "" || im.madeOnNode() {
			continue
		}
		omitted[im.Reference] = true
		for _, p := range im.Where {
			touched[p.Object] = true
		}
	}
	if len(omitted) == 0 {
		return objs
	}
	var out []Object
	for _, o := range objs {
		kind, _ := o.Value["kind"].(string)
		switch {
		case !touched[o.name()]:
		case slices.Contains(kinds, kind):
			continue
		case kind == "ConfigMap":
			o = withoutItems(o, omitted)
		}
		out = append(out, o)
	}
	return out
}

// withoutItems gives a ConfigMap whose texts list none of the images.
func withoutItems(o Object, omitted map[string]bool) Object {
	data, _ := o.Value["data"].(map[string]any)
	texts := maps.Clone(data)
	for key, v := range texts {
		text, ok := v.(string)
		if !ok {
			continue
		}
		var kept strings.Builder
		for line := range strings.Lines(text) {
			if m := listedImage.FindStringSubmatch(strings.TrimRight(line, "\r\n")); m != nil {
				if name, err := bundle.CanonicalReference(m[1]); err == nil && omitted[name] {
					continue
				}
			}
			kept.WriteString(line)
		}
		texts[key] = kept.String()
	}
	o.Value = maps.Clone(o.Value)
	o.Value["data"] = texts
	return o
}

// empty takes the values out of the keys that each node makes up for itself, and gives
// the secrets whose objects are there. A key that its object does not have is an error.
func empty(objs []Object, secrets []bundle.Secret) ([]bundle.Secret, error) {
	at := map[string]int{}
	for i, o := range objs {
		if o.Value["kind"] == "Secret" && o.Value["apiVersion"] == "v1" {
			ns, name := o.namespacedName()
			at[ns+"/"+name] = i
		}
	}
	var out []bundle.Secret
	var errs []error
	for _, s := range secrets {
		var keys []bundle.SecretKey
		for _, k := range s.Keys {
			i, ok := at[k.Namespace+"/"+k.Secret]
			if !ok {
				continue // its component is off
			}
			value, ok := emptied(objs[i], k.Key)
			if !ok {
				errs = append(errs, fmt.Errorf("secret %s: Secret %s/%s has no key %s", s.Name, k.Namespace, k.Secret, k.Key))
				continue
			}
			objs[i].Value = value
			keys = append(keys, k)
		}
		if len(keys) > 0 {
			s.Keys = keys
			out = append(out, s)
		}
	}
	return out, errors.Join(errs...)
}

// emptied gives a Secret with an empty value for the key; false if it has no such key.
func emptied(o Object, key string) (map[string]any, bool) {
	for _, field := range []string{"data", "stringData"} {
		values, _ := o.Value[field].(map[string]any)
		if _, ok := values[key]; !ok {
			continue
		}
		value := maps.Clone(o.Value)
		values = maps.Clone(values)
		values[key] = ""
		value[field] = values
		return value, true
	}
	return nil, false
}
