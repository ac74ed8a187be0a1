package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"atoll/bundle"
	"atoll/bundle/stack"
)

// addRegistries adds the registries of the appliance's images to settings that must name them.
// Objects are not changed in place. A key that its object does not have is an error; an object
// that is not there belongs to a component that is off.
func addRegistries(objs []Object, found *Findings, settings []stack.Registries) error {
	if len(settings) == 0 {
		return nil
	}
	var hosts []string
	for _, im := range found.Images {
		if im.Omitted != "" {
			continue
		}
		host, _, _, _, err := bundle.SplitReference(im.Reference)
		if err != nil {
			return fmt.Errorf("image %q: %w", im.Reference, err)
		}
		hosts = append(hosts, host)
		if host == "docker.io" {
			hosts = append(hosts, "index.docker.io") // as go-containerregistry has it, and what is built on it
		}
	}
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	for _, s := range settings {
		i := slices.IndexFunc(objs, func(o Object) bool {
			ns, name := o.namespacedName()
			return o.Value["apiVersion"] == "v1" && o.Value["kind"] == "ConfigMap" && ns == s.Namespace && name == s.ConfigMap
		})
		if i < 0 {
			continue
		}
		data, _ := objs[i].Value["data"].(map[string]any)
		text, ok := data[s.Key].(string)
		if !ok {
			return fmt.Errorf("registries: ConfigMap %s/%s has no key %s", s.Namespace, s.ConfigMap, s.Key)
		}
		all := strings.Split(text, ",")
		for _, host := range hosts {
			if !slices.Contains(all, host) {
				all = append(all, host)
			}
		}
		data = maps.Clone(data)
		data[s.Key] = strings.Join(all, ",")
		objs[i].Value = maps.Clone(objs[i].Value)
		objs[i].Value["data"] = data
	}
	return nil
}
