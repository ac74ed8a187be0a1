package manifest

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// remote matches what kustomize would hand to git or to HTTP, even where a local
// file of that name exists: a scheme, user@host, git:: and github.com.
var remote = regexp.MustCompile(`(?i)^(git::|[a-z][a-z0-9+.-]*://|[^/]*@[^/]*[:/]|github\.com[/:])`)

// pathFields are the fields of a kustomization that hold lists of paths.
var pathFields = []string{"resources", "bases", "components", "crds", "configurations", "generators",
	"transformers", "validators", "patchesStrategicMerge"}

// entryFields are its fields that hold objects (or a list of them) with paths in them.
var entryFields = []string{"patches", "patchesJson6902", "replacements", "openapi", "configMapGenerator", "secretGenerator"}

// checkLocal walks the kustomization in dir and all that it includes, and makes
// sure that every path is there. Kustomize itself would try to fetch what is not.
func checkLocal(mem filesys.FileSystem, dir string) error {
	c := localChecker{mem: mem, seen: map[string]bool{}}
	return c.folder(path.Join("/", dir))
}

type localChecker struct {
	mem  filesys.FileSystem
	seen map[string]bool
}

func (c *localChecker) folder(dir string) error {
	if c.seen[dir] {
		return nil
	}
	c.seen[dir] = true
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		file := path.Join(dir, name)
		if data, err := c.mem.ReadFile(file); err == nil {
			return c.kustomization(file, data)
		}
	}
	return fmt.Errorf("folder %s has no kustomization.yaml", show(dir))
}

func (c *localChecker) kustomization(file string, data []byte) error {
	var k map[string]any
	if err := yaml.Unmarshal(data, &k); err != nil {
		return fmt.Errorf("parsing %s: %w", show(file), err)
	}
	for _, field := range pathFields {
		list, _ := k[field].([]any)
		for _, v := range list {
			if err := c.entry(file, field, v); err != nil {
				return err
			}
		}
	}
	for _, field := range entryFields {
		if err := c.paths(file, field, k[field]); err != nil {
			return err
		}
	}
	return nil
}

// entry checks one item of a path field: a file, a folder, or YAML written in place.
func (c *localChecker) entry(file, field string, v any) error {
	p, ok := v.(string)
	if !ok {
		return nil
	}
	if strings.Contains(p, "\n") {
		return c.plugin(file, []byte(p)) // an object, for its text stands here
	}
	if err := c.present(file, field, p); err != nil {
		return err
	}
	target := path.Join(path.Dir(file), p)
	if c.mem.IsDir(target) {
		return c.folder(target)
	}
	switch field {
	case "generators", "transformers", "validators":
		data, err := c.mem.ReadFile(target)
		if err != nil {
			return err
		}
		return c.plugin(target, data)
	}
	return nil
}

// plugin checks the objects that configure a generator or transformer: they may name files too.
func (c *localChecker) plugin(file string, data []byte) error {
	docs, err := decode(data)
	if err != nil {
		return fmt.Errorf("parsing %s: %w", show(file), err)
	}
	for _, doc := range docs {
		if err := c.paths(file, "kind "+fmt.Sprint(doc["kind"]), doc); err != nil {
			return err
		}
	}
	return nil
}

// paths checks the paths in an object or in a list of objects.
func (c *localChecker) paths(file, field string, v any) error {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			if err := c.paths(file, field, item); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range []string{"path", "paths", "files", "envs", "env"} {
			if err := c.source(file, field+"."+key, v[key]); err != nil {
				return err
			}
		}
	}
	return nil
}

// source checks one path, or a list of paths that may have a key before them, as in key=path.
func (c *localChecker) source(file, field string, v any) error {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			if err := c.source(file, field, item); err != nil {
				return err
			}
		}
	case string:
		if _, after, ok := strings.Cut(v, "="); ok && !remote.MatchString(v) {
			v = after
		}
		if v == "" || strings.HasPrefix(v, "/") || strings.Contains(v, "\n") {
			return nil // a JSON pointer of a plugin, or text; never fetched
		}
		return c.present(file, field, v)
	}
	return nil
}

func (c *localChecker) present(file, field, p string) error {
	if remote.MatchString(p) {
		return fmt.Errorf("%s: %s: %q is remote; rendering fetches nothing, so put it into the tree", show(file), field, p)
	}
	if !c.mem.Exists(path.Join(path.Dir(file), p)) {
		return fmt.Errorf("%s: %s: %q is not in the tree", show(file), field, p)
	}
	return nil
}

// show gives a path of the tree as its owner knows it.
func show(p string) string { return strings.TrimPrefix(p, "/") }
