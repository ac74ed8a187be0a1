package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"atoll/bundle/bounds"
)

// Parse reads the objects of a stream of YAML documents. The name is used in
// errors and as the objects' source. Lists, typed ones too, are taken apart; empty
// documents are skipped; what is no Kubernetes object is an error.
func Parse(name string, data []byte) ([]Object, error) { return parse(name, data, false) }

// parse takes documents that are no Kubernetes objects only if all are wanted.
func parse(name string, data []byte, all bool) ([]Object, error) {
	docs, err := decode(data, all)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", name, err)
	}
	var objs []Object
	for i, doc := range docs {
		o := Object{Source: name, Value: doc}
		if len(docs) > 1 {
			o.Source = fmt.Sprintf("%s, document %d", name, i+1)
		}
		if _, ok := doc["kind"]; !ok && all {
			objs = append(objs, o)
			continue
		}
		if objs, err = expand(objs, o, 0); err != nil {
			return nil, fmt.Errorf("parsing %s: %w", o.Source, err)
		}
	}
	return objs, nil
}

// expand appends an object to objs, or the items of it if it is a list. The items
// of a typed list, like DeploymentList, may leave their kind and apiVersion out.
func expand(objs []Object, o Object, depth int) ([]Object, error) {
	kind, _ := o.Value["kind"].(string)
	items, isList := o.Value["items"].([]any)
	if v, given := o.Value["items"]; given && v == nil {
		isList = true // an empty one, as Go programs write it
	}
	itemKind, named := strings.CutSuffix(kind, "List")
	switch {
	case kind == "":
		return nil, errors.New("a document is no Kubernetes object: it has no kind")
	case !isList || !named:
		return append(objs, o), nil
	case depth > bounds.Depth:
		return nil, fmt.Errorf("lists are nested more than %d times", bounds.Depth)
	}
	for i, item := range items {
		if item == nil {
			continue // like an empty document
		}
		value, _ := item.(map[string]any)
		if value == nil {
			return nil, fmt.Errorf("items[%d] of a %s is no object", i, kind)
		}
		if itemKind != "" {
			typed := map[string]any{"kind": itemKind, "apiVersion": o.Value["apiVersion"]}
			maps.Copy(typed, value)
			value = typed
		}
		var err error
		if objs, err = expand(objs, Object{Source: o.Source, Path: fmt.Sprintf("%sitems[%d].", o.Path, i), Value: value}, depth+1); err != nil {
			return nil, err
		}
	}
	return objs, nil
}

// typedList finds lists whose items may leave their kind out.
var typedList = regexp.MustCompile(`\bkind["']?\s*:\s*["']?[A-Z][A-Za-z0-9]*List\b`)

// Borders of documents that kustomize, which splits a file by text, refuses or does not see.
var (
	documentStart = regexp.MustCompile(`(?m)^---[ \t]+([^#\s])`) // with content on its line
	documentEnd   = regexp.MustCompile(`(?m)^\.\.\.(\s|$)`)
	loneCR        = regexp.MustCompile(`\r([^\n]|$)`)
)

// untype makes a file with plain ends such that kustomize sees all its objects: it knows
// only one border of documents, and no typed lists, which are taken apart.
func untype(name string, data []byte) []byte {
	if !isManifest(name) {
		return data
	}
	if bytes.Contains(data, []byte("--- ")) || bytes.Contains(data, []byte("---\t")) {
		data = documentStart.ReplaceAll(data, []byte("---\n$1"))
	}
	if !bytes.Contains(data, []byte("List")) || !typedList.Match(data) {
		return data
	}
	objs, err := Parse(name, data)
	if err != nil {
		return data // not all objects: a patch, say; or kustomize will tell
	}
	text, err := encode(objs)
	if err != nil {
		return data
	}
	return []byte(text)
}

// plainEnds lets a document follow on the end of another with no "---" between, which is
// legal, but which neither kustomize nor the YAML library reads. Carriage returns that end
// a line alone, which kustomize does not see, become newlines. No line gets another number.
func plainEnds(data []byte) []byte {
	if bytes.Contains(data, []byte("\r")) && loneCR.Match(data) {
		data = bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	}
	if !bytes.HasPrefix(data, []byte("...")) && !bytes.Contains(data, []byte("\n...")) {
		return data // so it is with nearly all: a regular expression would cost more than kustomize
	}
	return documentEnd.ReplaceAll(data, []byte("---$1"))
}

// decode reads every document that is a mapping. A document of another type, like a JSON
// patch, is an error, or is given under an empty key if all are wanted.
func decode(data []byte, all bool) ([]map[string]any, error) {
	data = plainEnds(data)
	if err := bounds.YAML(data); err != nil {
		return nil, err
	}
	var docs []map[string]any
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		if doc.IsZero() {
			continue
		}
		var value map[string]any
		if err := doc.Decode(&value); err != nil {
			var other any
			if !all || doc.Decode(&other) != nil {
				return nil, err
			}
			value = map[string]any{"": other}
		}
		if value != nil {
			docs = append(docs, value)
		}
	}
}
