package manifest

import (
	"errors"
	"fmt"
	"reflect"

	//lint:ignore SA1019 kustomize has these types nowhere else
	"sigs.k8s.io/kustomize/api/builtins"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"
	sigsyaml "sigs.k8s.io/yaml"
)

// pathless are the builtin plugins that read no file. All others are known to
// [kustomization.plugin], or refused: they run Helm, a program, or a container.
var pathless = map[string]bool{
	"AnnotationsTransformer":  true,
	"HashTransformer":         true,
	"IAMPolicyGenerator":      true,
	"ImageTagTransformer":     true,
	"LabelTransformer":        true,
	"NamespaceTransformer":    true,
	"PrefixSuffixTransformer": true,
	"PrefixTransformer":       true,
	"ReplicaCountTransformer": true,
	"SuffixTransformer":       true,
}

// plugins checks what configures generators, transformers or validators: a text, a file or
// a folder. What takes its place is a text.
func (k *kustomization) plugins(field, name string) (string, error) {
	var configs []Object
	var err error
	if _, inline := decode([]byte(name), false); inline == nil {
		configs, err = k.configs(k.file, []byte(name))
	} else {
		configs, err = k.configsAt(k, field, name)
	}
	if err != nil {
		return "", err
	}
	text, err := encode(configs)
	return "---\n" + text, err
}

// configsAt returns the configurations that another kustomization, or k itself, names. Of a
// folder that is what its kustomization lists. What else a kustomization can do would be
// done to them after they were checked.
func (k *kustomization) configsAt(by *kustomization, field, name string) ([]Object, error) {
	target, err := by.target(field, name)
	if err != nil {
		return nil, err
	}
	dir, err := k.space.folder(target)
	if err != nil {
		target, data, err := by.read(field, name)
		if err != nil {
			return nil, err
		}
		return k.configs(target, data)
	}
	in, err := k.load(dir)
	if err != nil {
		return nil, err
	}
	parsed, err := in.parse()
	if err != nil {
		return nil, err
	}
	if !reflect.DeepEqual(parsed, &types.Kustomization{TypeMeta: parsed.TypeMeta, MetaData: parsed.MetaData, Resources: parsed.Resources}) {
		return nil, by.error(field, name, errors.New("a folder of plugins may list resources, and do nothing else"))
	}
	if err := k.enter(); err != nil {
		return nil, err
	}
	defer k.leave()
	var configs []Object
	for _, resource := range parsed.Resources {
		more, err := k.configsAt(in, "resources", resource)
		if err != nil {
			return nil, err
		}
		configs = append(configs, more...)
	}
	return configs, nil
}

// configs checks the configurations in a file. The paths in them start at k's folder.
func (k *kustomization) configs(file string, data []byte) ([]Object, error) {
	in := &kustomization{checker: k.checker, dir: k.dir, file: file, data: data}
	objs, err := parse(k.show(file), data, false)
	if err != nil {
		return nil, err
	}
	for i := range objs {
		if objs[i].Value, err = in.plugin(objs[i].Value); err != nil {
			return nil, err
		}
	}
	return objs, nil
}

// plugin checks the configuration of one plugin, with the type that the plugin reads it by.
func (k *kustomization) plugin(config map[string]any) (map[string]any, error) {
	kind, _ := config["kind"].(string)
	if config["apiVersion"] != konfig.BuiltinPluginApiVersion {
		return nil, fmt.Errorf("%s: %s is no plugin that is built in: no other is run", k.show(k.file), kind)
	}
	if pathless[kind] {
		return config, nil
	}
	c := collector{k: k}
	var read func() // replaces the paths
	var p any
	switch kind {
	case "ConfigMapGenerator":
		g := &builtins.ConfigMapGeneratorPlugin{}
		p, read = g, func() { c.pairs(&g.KvPairSources, kind) }
	case "SecretGenerator":
		g := &builtins.SecretGeneratorPlugin{}
		p, read = g, func() { c.pairs(&g.KvPairSources, kind) }
	case "PatchTransformer":
		t := &builtins.PatchTransformerPlugin{}
		p, read = t, func() { c.one(&t.Path, k.yaml, kind+".path") }
	case "PatchJson6902Transformer":
		t := &builtins.PatchJson6902TransformerPlugin{}
		p, read = t, func() { c.one(&t.Path, k.yaml, kind+".path") }
	case "PatchStrategicMergeTransformer":
		t := &builtins.PatchStrategicMergeTransformerPlugin{}
		p, read = t, func() {
			for i := range t.Paths {
				c.one((*string)(&t.Paths[i]), k.inlinePatch, kind+".paths")
			}
		}
	case "ReplacementTransformer":
		t := &builtins.ReplacementTransformerPlugin{}
		p, read = t, func() {
			for i := range t.ReplacementList {
				c.one(&t.ReplacementList[i].Path, k.yaml, kind+".replacements.path")
			}
		}
	case "ValueAddTransformer":
		t := &builtins.ValueAddTransformerPlugin{}
		p, read = t, func() { c.one(&t.TargetFilePath, k.yaml, kind+".targetFilePath") }
	default:
		return nil, fmt.Errorf("%s: plugin %s is not run", k.show(k.file), kind)
	}
	text, err := sigsyaml.Marshal(config)
	if err == nil {
		err = sigsyaml.Unmarshal(text, p)
	}
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %s: %w", k.show(k.file), kind, err)
	}
	if read(); c.err != nil {
		return nil, c.err
	}
	if text, err = sigsyaml.Marshal(p); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", k.show(k.file), kind, err)
	}
	docs, err := decode(text, false)
	if err != nil || len(docs) != 1 {
		return nil, fmt.Errorf("%s: %s: cannot be read again: %w", k.show(k.file), kind, err)
	}
	out := docs[0]
	out["apiVersion"], out["kind"] = konfig.BuiltinPluginApiVersion, kind
	delete(out, "metadata")
	if meta, ok := config["metadata"]; ok {
		out["metadata"] = meta
	}
	return out, nil
}
