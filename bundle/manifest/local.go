package manifest

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"

	"atoll/bundle"
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

// localChecker walks a kustomization and all that it includes, and makes sure that
// every path is there: kustomize itself would try to fetch what is not. What is named by
// a URL that a source has is rewritten to the path of the source.
type localChecker struct {
	fsys    *carefulFS
	sources []bundle.Source
	inTree  bool // paths start at a tree's root, not at that of the disk
	seen    map[string]bool
	schema  bool // a kustomization has an OpenAPI schema of its own
	depth   int  // of folders in each other

	local map[string]string // of the kustomization that is read: what its URLs become
}

func (c *localChecker) folder(dir string) error {
	if c.seen[dir] {
		return nil
	}
	c.seen[dir] = true
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		file := path.Join(dir, name)
		if data, err := c.fsys.ReadFile(file); err == nil {
			if c.depth++; c.depth > maxDepth {
				return fmt.Errorf("folders include each other more than %d deep", maxDepth)
			}
			outer := c.local
			c.local = map[string]string{}
			err := c.kustomization(file, data)
			if err == nil && len(c.local) > 0 {
				err = c.rewrite(file, data)
			}
			c.local = outer
			c.depth--
			return err
		}
	}
	return fmt.Errorf("folder %s has no kustomization.yaml", c.show(dir))
}

func (c *localChecker) kustomization(file string, data []byte) error {
	var k map[string]any
	if err := yaml.Unmarshal(data, &k); err != nil {
		return fmt.Errorf("parsing %s: %w", c.show(file), err)
	}
	c.schema = c.schema || k["openapi"] != nil
	for _, field := range pathFields {
		list, _ := k[field].([]any)
		for _, v := range list {
			if err := c.entry(file, data, field, v); err != nil {
				return err
			}
		}
	}
	for _, field := range entryFields {
		if err := c.paths(file, data, field, k[field]); err != nil {
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
		var err error
		if p, err = c.fromSource(file, data, field, p); err != nil {
			return err
		}
	}
	target := path.Join(path.Dir(file), p)
	switch {
	case !c.fsys.Exists(target):
		return fmt.Errorf("%s: %s: %q is not in the tree", c.show(file), field, p)
	case c.fsys.IsDir(target):
		return c.folder(target)
	case plugin:
		data, err := c.fsys.ReadFile(target)
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
		if err := c.plugin(file, data, fmt.Sprint(doc["kind"]), doc); err != nil {
			return err
		}
	}
	return nil
}

// plugin refuses what a plugin's configuration names by URL: that is not rewritten.
func (c *localChecker) plugin(file string, data []byte, field string, v any) error {
	return eachPath(field, v, func(field, p string) error { return c.remoteError(file, data, field, p) })
}

// paths looks at every path in a field of a kustomization, however deep. Whether a local
// one is there kustomize says itself.
func (c *localChecker) paths(file string, data []byte, field string, v any) error {
	return eachPath(field, v, func(field, p string) error {
		_, err := c.fromSource(file, data, field, p)
		return err
	})
}

// eachPath calls do for every remote path in a value.
func eachPath(field string, v any, do func(field, p string) error) error {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			if err := eachPath(field, item, do); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if err := eachPath(field+"."+key, v[key], do); err != nil {
				return err
			}
		}
	case string:
		key := field[strings.LastIndex(field, ".")+1:]
		_, after, _ := strings.Cut(v, "=") // key=path
		if slices.Contains(pathKeys, key) && (remote.MatchString(v) || remote.MatchString(after)) {
			return do(field, v)
		}
	}
	return nil
}

// fromSource gives the path, from the file's folder, of what a URL names in a source.
func (c *localChecker) fromSource(file string, data []byte, field, p string) (string, error) {
	key, url := "", p
	if before, after, ok := strings.Cut(p, "="); ok && !remote.MatchString(p) {
		key, url = before+"=", after
	}
	for _, s := range c.sources {
		inside, ok := within(s, url)
		if !ok {
			continue
		}
		target := path.Join("/", sourcesDir, s.Name, inside)
		if !c.fsys.Exists(target) {
			return "", fmt.Errorf("%s:%d: %s: %q: source %s has no %s", c.show(file), lineOf(data, p), field, p, s.Name, inside)
		}
		rel, err := filepath.Rel(path.Dir(file), target)
		if err != nil {
			return "", err
		}
		c.local[p] = key + rel
		return rel, nil
	}
	return "", c.remoteError(file, data, field, p)
}

func (c *localChecker) remoteError(file string, data []byte, field, p string) error {
	return &RemoteError{File: c.show(file), Line: lineOf(data, p), Field: field, URL: p}
}

// A RemoteError says that a kustomization names something that is neither in its tree
// nor in a source. Rendering fetches nothing.
type RemoteError struct {
	File  string
	Line  int
	Field string
	URL   string
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf("%s:%d: %s: %q is remote: no source has it, and rendering fetches nothing", e.File, e.Line, e.Field, e.URL)
}

// rewrite puts the paths of sources into a kustomization, in place of URLs.
func (c *localChecker) rewrite(file string, data []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("parsing %s: %w", c.show(file), err)
	}
	c.replace(&doc)
	out, err := yaml.Marshal(&doc)
	if err != nil {
		return fmt.Errorf("rewriting %s: %w", c.show(file), err)
	}
	c.fsys.replace(file, out)
	return nil
}

func (c *localChecker) replace(n *yaml.Node) {
	if local, ok := c.local[n.Value]; ok && n.Kind == yaml.ScalarNode {
		n.Value = local
	}
	for _, child := range n.Content {
		c.replace(child)
	}
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
