package manifest

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
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

// pathKeys are the keys that hold a path there, and in the configuration of a plugin.
var pathKeys = []string{"path", "paths", "files", "envs", "env"}

// checkLocal walks the kustomization in dir and all that it includes, and makes
// sure that every path is there. Kustomize itself would try to fetch what is not.
func checkLocal(mem filesys.FileSystem, dir string) error {
	c := localChecker{mem: mem, inTree: !path.IsAbs(dir), seen: map[string]bool{}}
	return c.folder(path.Join("/", dir))
}

type localChecker struct {
	mem    filesys.FileSystem
	inTree bool // paths start at a tree's root, not at that of the disk
	seen   map[string]bool
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
	return fmt.Errorf("folder %s has no kustomization.yaml", c.show(dir))
}

func (c *localChecker) kustomization(file string, data []byte) error {
	var k map[string]any
	if err := yaml.Unmarshal(data, &k); err != nil {
		return fmt.Errorf("parsing %s: %w", c.show(file), err)
	}
	for _, field := range pathFields {
		list, _ := k[field].([]any)
		for _, v := range list {
			if err := c.entry(file, data, field, v); err != nil {
				return err
			}
		}
	}
	for _, field := range entryFields {
		if err := c.refuseRemote(file, data, field, k[field]); err != nil {
			return err
		}
	}
	return nil
}

// entry checks one item of a path field: a file, a folder, or YAML written in place.
func (c *localChecker) entry(file string, data []byte, field string, v any) error {
	p, ok := v.(string)
	if !ok {
		return nil
	}
	plugin := field == "generators" || field == "transformers" || field == "validators"
	if strings.Contains(p, "\n") {
		if !plugin {
			return nil
		}
		return c.checkPlugin(file, []byte(p))
	}
	if remote.MatchString(p) {
		return c.remoteError(file, data, field, p)
	}
	target := path.Join(path.Dir(file), p)
	switch {
	case !c.mem.Exists(target):
		return fmt.Errorf("%s: %s: %q is not in the tree", c.show(file), field, p)
	case c.mem.IsDir(target):
		return c.folder(target)
	case plugin:
		data, err := c.mem.ReadFile(target)
		if err != nil {
			return err
		}
		return c.checkPlugin(target, data)
	}
	return nil
}

// checkPlugin checks what configures a generator or transformer: it may name files too.
func (c *localChecker) checkPlugin(file string, data []byte) error {
	docs, err := decode(data, false)
	if err != nil {
		return fmt.Errorf("parsing %s: %w", c.show(file), err)
	}
	for _, doc := range docs {
		if err := c.refuseRemote(file, data, fmt.Sprint(doc["kind"]), doc); err != nil {
			return err
		}
	}
	return nil
}

// refuseRemote looks at every path in a value, however deep. Whether a local one
// is there kustomize says itself.
func (c *localChecker) refuseRemote(file string, data []byte, field string, v any) error {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			if err := c.refuseRemote(file, data, field, item); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if err := c.refuseRemote(file, data, field+"."+key, v[key]); err != nil {
				return err
			}
		}
	case string:
		key := field[strings.LastIndex(field, ".")+1:]
		_, after, _ := strings.Cut(v, "=") // key=path
		if slices.Contains(pathKeys, key) && (remote.MatchString(v) || remote.MatchString(after)) {
			return c.remoteError(file, data, field, v)
		}
	}
	return nil
}

func (c *localChecker) remoteError(file string, data []byte, field, p string) error {
	return fmt.Errorf("%s:%d: %s: %q is remote; rendering fetches nothing, so put it into the tree", c.show(file), lineOf(data, p), field, p)
}

// lineOf gives the line of a file on which a string stands; 1 if it is not found, as one
// that is written with escapes.
func lineOf(data []byte, s string) int {
	before, _, found := bytes.Cut(data, []byte(s))
	if !found {
		return 1
	}
	return bytes.Count(before, []byte("\n")) + 1
}

// show gives a path as its owner knows it.
func (c *localChecker) show(p string) string {
	if c.inTree {
		return strings.TrimPrefix(p, "/")
	}
	return p
}
