package ignition

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/coreos/butane/config/common"
	fcos "github.com/coreos/butane/config/fcos/v1_4"
	flatcar "github.com/coreos/butane/config/flatcar/v1_0"
	"github.com/coreos/ignition/v2/config/v3_3"
	"github.com/coreos/ignition/v2/config/v3_3/types"
	"github.com/coreos/vcontext/report"
	"go.yaml.in/yaml/v3"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// translate turns Butane into an Ignition configuration. Whatever Butane reports,
// warnings too, is an error: an unknown key is a mistake, not a remark.
func translate(b Butane) (types.Config, error) {
	// Uncompressed, so that the bytes do not depend on the compressor's version.
	opts := common.TranslateBytesOptions{TranslateOptions: common.TranslateOptions{
		FilesDir: b.FilesDir, NoResourceAutoCompression: true,
	}}
	var head struct{ Variant, Version string }
	if err := yaml.Unmarshal(b.Data, &head); err != nil {
		return types.Config{}, fmt.Errorf("parsing %s: %w", b.Name, err)
	}
	var data []byte
	var rep report.Report
	var err error
	switch head.Variant + " " + head.Version {
	case "fcos 1.4.0":
		data, rep, err = fcos.ToIgn3_3Bytes(b.Data, opts)
	case "flatcar 1.0.0":
		data, rep, err = flatcar.ToIgn3_3Bytes(b.Data, opts)
	default:
		return types.Config{}, &bundle.DefinitionError{File: b.Name, Line: 1, Path: "version",
			Msg: fmt.Sprintf("variant %q version %q is not supported: the node's Ignition takes spec 3.3.0 at most: write fcos 1.4.0 or flatcar 1.0.0", head.Variant, head.Version)}
	}
	if errs := reported(b.Name, rep); len(errs) > 0 {
		return types.Config{}, errors.Join(errs...)
	}
	if err != nil {
		return types.Config{}, fmt.Errorf("parsing %s: %w", b.Name, err)
	}
	config, _, err := v3_3.Parse(data)
	if err != nil {
		return types.Config{}, fmt.Errorf("parsing what Butane made of %s: %w", b.Name, err)
	}
	return config, nil
}

// reported gives the entries of a report as errors in the file name.
func reported(name string, rep report.Report) []error {
	var errs []error
	for _, e := range rep.Entries {
		line, _ := e.Marker.Start()
		errs = append(errs, &bundle.DefinitionError{File: name, Line: max(int(line), 1), Path: fieldPath(e.Context.Path), Msg: e.Message})
	}
	return errs
}

// fieldPath writes a path the way people write fields: a.b[0].c.
func fieldPath(path []any) string {
	var b strings.Builder
	for _, part := range path {
		switch part := part.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", part)
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			fmt.Fprint(&b, part)
		}
	}
	return b.String()
}

// userConfig translates the user's Butane and refuses what a node cannot do.
func userConfig(b Butane) (types.Config, error) {
	root, err := parseYAML(b)
	if err != nil {
		return types.Config{}, err
	}
	if err := checkSize(b, root); err != nil {
		return types.Config{}, err
	}
	config, err := translate(b)
	if err != nil {
		return types.Config{}, err
	}
	var errs []error
	for _, r := range refusals(config) {
		known, line := locate(root, r.path)
		errs = append(errs, &bundle.DefinitionError{File: b.Name, Line: line, Path: fieldPath(known), Msg: r.why})
	}
	return config, errors.Join(errs...)
}

// parseYAML reads exactly one document: Butane itself would ignore a second one.
func parseYAML(b Butane) (*yaml.Node, error) {
	if len(b.Data) > bounds.FirstBoot {
		return nil, fmt.Errorf("parsing %s: file is larger than %d bytes", b.Name, bounds.FirstBoot)
	}
	if err := bounds.YAML(b.Data); err != nil {
		return nil, fmt.Errorf("parsing %s: %w", b.Name, err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b.Data))
	var doc, next yaml.Node
	if err := dec.Decode(&doc); err == io.EOF {
		return nil, &bundle.DefinitionError{File: b.Name, Line: 1, Msg: "file is empty"}
	} else if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", b.Name, err)
	}
	if err := dec.Decode(&next); err == nil {
		return nil, &bundle.DefinitionError{File: b.Name, Line: next.Line, Msg: "file has a second YAML document"}
	} else if err != io.EOF {
		return nil, fmt.Errorf("parsing %s: %w", b.Name, err)
	}
	return doc.Content[0], nil
}

// locate gives as much of path as is there, and the line of its end. What Butane makes up,
// from shorthand or a tree of files, has no place of its own.
func locate(n *yaml.Node, path []any) (known []any, line int) {
	line = n.Line
	for i, part := range path {
		next := child(n, part)
		if next == nil {
			return path[:i], line
		}
		n, line = next, next.Line
	}
	return path, line
}

func child(n *yaml.Node, part any) *yaml.Node {
	switch part := part.(type) {
	case int:
		if n.Kind == yaml.SequenceNode && part < len(n.Content) {
			return n.Content[part]
		}
	case string:
		if n.Kind != yaml.MappingNode {
			return nil
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == part {
				return n.Content[i+1]
			}
		}
	}
	return nil
}
