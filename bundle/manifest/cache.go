package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"atoll/bundle"
)

// cacheFormat changes when the same tree gives other objects, or they are kept otherwise.
const cacheFormat = "2"

// cache keeps the objects of components, by what they are rendered from.
type cache struct {
	dir  string // empty keeps nothing
	tree string // digest of all files
}

// digest tells a tree apart, and what renders it.
func (t *tree) digest() string {
	version := cacheFormat
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if strings.HasPrefix(m.Path, "sigs.k8s.io/kustomize/") {
				version += " " + m.Path + m.Version
			}
		}
	}
	return version + hex.EncodeToString(t.sum.Sum(nil))
}

// get gives the objects of a component: those that are kept, else what render gives. A
// file that cannot be read is made anew; one that cannot be written costs time later.
func (c cache) get(component string, render func() ([]Object, error)) ([]Object, error) {
	if c.dir == "" {
		return render()
	}
	key := sha256.Sum256([]byte(c.tree + "\x00" + component))
	path := filepath.Join(c.dir, hex.EncodeToString(key[:])+".json")
	if data, err := os.ReadFile(path); err == nil {
		if objs, err := decodeCached(component, data); err == nil {
			return objs, nil
		}
	}
	objs, err := render()
	if err != nil {
		return nil, err
	}
	kept := make([]cachedObject, len(objs))
	for i, o := range objs {
		kept[i] = cachedObject{o.Path, o.Value}
	}
	data, err := json.Marshal(kept)
	if err != nil {
		return nil, fmt.Errorf("keeping component %s: %w", component, err)
	}
	if err := os.MkdirAll(c.dir, 0o755); err == nil {
		_ = bundle.WriteFile(path, func(f *os.File) error { _, err := f.Write(data); return err })
	}
	return objs, nil
}

type cachedObject struct {
	Path  string         `json:"path,omitempty"`
	Value map[string]any `json:"value"`
}

func decodeCached(component string, data []byte) ([]Object, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var kept []cachedObject
	if err := dec.Decode(&kept); err != nil {
		return nil, err
	}
	objs := make([]Object, len(kept))
	for i, v := range kept {
		objs[i] = Object{Source: component, Path: v.Path, Value: numbers(v.Value).(map[string]any)}
	}
	return objs, nil
}

// numbers turns JSON's numbers into what YAML decodes.
func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, val := range v {
			v[k] = numbers(val)
		}
	case []any:
		for i, val := range v {
			v[i] = numbers(val)
		}
	case json.Number:
		if n, err := strconv.Atoi(v.String()); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
	}
	return v
}
