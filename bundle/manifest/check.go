//lint:file-ignore SA1019 what kustomize deprecates it reads, and so do we

package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"
	sigsyaml "sigs.k8s.io/yaml"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// remote matches what kustomize would hand to git or to HTTP, even where a local
// file of that name exists: a scheme, user@host, git:: and github.com. It makes for a good
// error; it is not what keeps kustomize from them.
var remote = regexp.MustCompile(`(?i)^(git::|[a-z][a-z0-9+.-]*://|[^/]*@[^/]*[:/]|github\.com[/:])`)

// A checker reads a kustomization and all that it includes as kustomize would, and gives
// kustomize what it has read and nothing else: each kustomization is decoded by
// kustomize's own types, every path in it is replaced by one that starts with a dot, which
// is never taken for remote, and the result is encoded again. What is named by a URL that a
// source has becomes the path of the source. Configurations of plugins are put in place.
type checker struct {
	space   space
	checked *checkedFS
	kinds   map[string]string // of the kustomizations in the folders that were looked at
	sources []bundle.Source
	inTree  bool // paths start at a tree's root, not at that of the disk
	schema  bool // a kustomization has an OpenAPI schema of its own
	depth   int  // of folders in each other
}

func newChecker(s space, sources []bundle.Source, inTree bool) *checker {
	return &checker{space: s, checked: newCheckedFS(), kinds: map[string]string{}, sources: sources, inTree: inTree}
}

// folder checks the kustomization in a folder, and returns the folder's true path.
func (c *checker) folder(name string) (string, error) {
	dir, err := c.space.folder(name)
	if err != nil {
		return "", fmt.Errorf("folder %s: %w", c.show(name), err)
	}
	if _, seen := c.kinds[dir]; seen {
		return dir, nil
	}
	c.kinds[dir] = "" // until it is known; kustomize itself refuses a cycle
	k, err := c.load(dir)
	if err != nil {
		return "", err
	}
	if err := c.enter(); err != nil {
		return "", err
	}
	defer c.leave()
	return dir, k.check()
}

func (c *checker) enter() error {
	if c.depth++; c.depth > bounds.Depth {
		return fmt.Errorf("folders include each other more than %d deep", bounds.Depth)
	}
	return nil
}

func (c *checker) leave() { c.depth-- }

// load reads the one kustomization in a folder.
func (c *checker) load(dir string) (*kustomization, error) {
	k := &kustomization{checker: c, dir: dir}
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		data, err := c.space.read(dir, path.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("%s: %w", c.show(path.Join(dir, name)), err)
		case k.file != "":
			return nil, fmt.Errorf("folder %s has both %s and %s", c.show(dir), path.Base(k.file), name)
		}
		k.file, k.data = path.Join(dir, name), data
	}
	if k.file == "" {
		return nil, fmt.Errorf("folder %s has no kustomization.yaml", c.show(dir))
	}
	return k, nil
}

// show gives a path as its owner knows it.
func (c *checker) show(p string) string {
	if c.inTree {
		return strings.TrimPrefix(p, "/")
	}
	return p
}

// kustomization is one that is being checked.
type kustomization struct {
	*checker
	dir  string
	file string // that is read: the kustomization's, or a plugin's configuration
	data []byte // of the file
}

func (k *kustomization) check() error {
	parsed, err := k.parse()
	if err != nil {
		return fmt.Errorf("parsing %s: %w", k.show(k.file), err)
	}
	k.kinds[k.dir] = parsed.Kind
	if len(parsed.HelmCharts) > 0 || parsed.HelmGlobals != nil {
		return fmt.Errorf("%s: helm charts are not rendered: render the chart, and name what comes of it", k.show(k.file))
	}
	if err := k.paths(parsed); err != nil {
		return err
	}
	out, err := sigsyaml.Marshal(parsed)
	if err != nil {
		return fmt.Errorf("%s: %w", k.show(k.file), err)
	}
	k.checked.folders[k.dir] = true
	k.checked.put(k.file, out)
	return nil
}

// parse decodes as kustomize does: keys are taken whatever their case, and fields that are
// deprecated become those that took their place.
func (k *kustomization) parse() (*types.Kustomization, error) {
	data := plainEnds(k.data)
	if err := bounds.YAML(data); err != nil {
		return nil, err
	}
	var parsed types.Kustomization
	if err := parsed.Unmarshal(data); err != nil {
		return nil, err
	}
	parsed.FixKustomization()
	return &parsed, nil
}

// paths checks and replaces every path of a kustomization. TestFields knows all fields.
func (k *kustomization) paths(p *types.Kustomization) error {
	c := collector{k: k}
	c.list(p.Resources, k.resource, "resources")
	c.list(p.Components, k.component, "components")
	c.list(p.Crds, k.yaml, "crds")
	c.list(p.Configurations, k.yaml, "configurations")
	if name, ok := p.OpenAPI["path"]; ok {
		c.one(&name, k.yaml, "openapi.path")
		p.OpenAPI["path"] = name
	}
	k.schema = k.schema || len(p.OpenAPI) > 0
	for i := range p.PatchesStrategicMerge {
		c.one((*string)(&p.PatchesStrategicMerge[i]), k.inlinePatch, "patchesStrategicMerge")
	}
	for i := range p.PatchesJson6902 {
		c.one(&p.PatchesJson6902[i].Path, k.yaml, "patchesJson6902.path")
	}
	for i := range p.Patches {
		c.one(&p.Patches[i].Path, k.yaml, "patches.path")
	}
	for i := range p.Replacements {
		c.one(&p.Replacements[i].Path, k.yaml, "replacements.path")
	}
	for i := range p.ConfigMapGenerator {
		c.pairs(&p.ConfigMapGenerator[i].KvPairSources, "configMapGenerator")
	}
	for i := range p.SecretGenerator {
		c.pairs(&p.SecretGenerator[i].KvPairSources, "secretGenerator")
	}
	c.list(p.Generators, k.plugins, "generators")
	c.list(p.Transformers, k.plugins, "transformers")
	c.list(p.Validators, k.plugins, "validators")
	return c.err
}

// replacer returns what takes the place of a path. An error says where the path stands.
type replacer func(field, name string) (string, error)

// collector replaces paths until there is an error.
type collector struct {
	k   *kustomization
	err error
}

// one replaces a path that may be left out.
func (c *collector) one(name *string, replace replacer, field string) {
	if c.err == nil && *name != "" {
		*name, c.err = replace(field, *name)
	}
}

func (c *collector) list(names []string, replace replacer, field string) {
	for i := range names {
		if c.err == nil && names[i] == "" {
			c.err = c.k.error(field, "", errors.New("is no path"))
		}
		c.one(&names[i], replace, field)
	}
}

func (c *collector) pairs(p *types.KvPairSources, field string) {
	c.list(p.FileSources, c.k.keyed, field+".files")
	c.list(p.EnvSources, c.k.raw, field+".envs")
	c.one(&p.EnvSource, c.k.raw, field+".env")
}

// resource is a file or a folder.
func (k *kustomization) resource(field, name string) (string, error) {
	target, err := k.target(field, name)
	if err != nil {
		return "", err
	}
	if _, err := k.space.folder(target); err == nil {
		return k.component(field, name)
	}
	return k.yaml(field, name)
}

// component is a folder.
func (k *kustomization) component(field, name string) (string, error) {
	target, err := k.target(field, name)
	if err != nil {
		return "", err
	}
	if _, err := k.space.folder(target); err != nil {
		return "", k.missing(field, name, err)
	}
	dir, err := k.folder(target)
	if err != nil {
		return "", err
	}
	return k.relative(dir)
}

// yaml is a file that is parsed.
func (k *kustomization) yaml(field, name string) (string, error) {
	target, data, err := k.read(field, name)
	if err != nil {
		return "", err
	}
	if k.checked.files[target] == nil {
		k.checked.putYAML(target, data)
	}
	return k.relative(target)
}

// rawDir is where files are that kustomize takes as they are. That a file may be there
// twice is what it is for: as an object and as the text of a ConfigMap.
const rawDir = "/.raw"

// raw is a file that becomes text, or variables.
func (k *kustomization) raw(field, name string) (string, error) {
	target, data, err := k.read(field, name)
	if err != nil {
		return "", err
	}
	k.checked.put(rawDir+target, data)
	return k.relative(rawDir + target)
}

// keyed is a file with a key or, if that is the file's name, without.
func (k *kustomization) keyed(field, name string) (string, error) {
	key, file, ok := strings.Cut(name, "=")
	if !ok || remote.MatchString(name) {
		key, file = path.Base(name), name
	}
	file, err := k.raw(field, file)
	return key + "=" + file, err
}

// inlinePatch is a patch, or a file with one. Only a text that has an end of line is never
// taken for remote.
func (k *kustomization) inlinePatch(field, name string) (string, error) {
	if _, err := decode([]byte(name), false); err == nil {
		return name + "\n", nil
	}
	return k.yaml(field, name)
}

// target returns the path that a name stands for.
func (k *kustomization) target(field, name string) (string, error) {
	if remote.MatchString(name) {
		return k.fromSource(field, name)
	}
	if path.IsAbs(name) {
		return path.Clean(name), nil
	}
	return path.Join(k.dir, name), nil
}

// fromSource returns the path of what a URL names in a source.
func (k *kustomization) fromSource(field, url string) (string, error) {
	for _, s := range k.sources {
		inside, ok := within(s, url)
		if !ok {
			continue
		}
		target := path.Join("/", sourcesDir, s.Name, inside)
		_, errFile := k.space.read(k.dir, target)
		_, errFolder := k.space.folder(target)
		if errFile != nil && errFolder != nil {
			return "", k.error(field, url, fmt.Errorf("source %s has no %s", s.Name, inside))
		}
		return target, nil
	}
	return "", &RemoteError{File: k.show(k.file), Line: lineOf(k.data, url), Field: field, URL: url}
}

func (k *kustomization) read(field, name string) (target string, data []byte, err error) {
	if target, err = k.target(field, name); err != nil {
		return "", nil, err
	}
	if data, err = k.space.read(k.dir, target); err != nil {
		return "", nil, k.missing(field, name, err)
	}
	return target, data, nil
}

func (k *kustomization) missing(field, name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s:%d: %s: %q is not in the tree", k.show(k.file), lineOf(k.data, name), field, name)
	}
	return k.error(field, name, err)
}

func (k *kustomization) error(field, name string, err error) error {
	return fmt.Errorf("%s:%d: %s: %q: %w", k.show(k.file), lineOf(k.data, name), field, name, err)
}

// relative returns a path from the kustomization's folder, which starts with a dot.
func (k *kustomization) relative(target string) (string, error) {
	rel, err := filepath.Rel(k.dir, target)
	if err != nil {
		return "", err
	}
	if rel != ".." && !strings.HasPrefix(rel, "../") {
		rel = "./" + rel
	}
	return rel, nil
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

// lineOf gives the line of a file on which a string stands; 1 if it is not found, as one
// that is written with escapes.
func lineOf(data []byte, s string) int {
	before, _, found := bytes.Cut(data, []byte(s))
	if !found {
		return 1
	}
	return bytes.Count(before, []byte("\n")) + 1
}
