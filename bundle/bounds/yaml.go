package bounds

import (
	"bytes"

	"go.yaml.in/yaml/v3"
)

// YAML returns an [*Error] if a stream of YAML documents is out of bounds. It is to be
// asked before the stream is decoded into values. It takes time linear in the length of
// data, and memory in proportion to what [Marks] allows, whatever the data is.
//
// What is no YAML is within bounds as far as it can be read: whoever decodes it will say so.
func YAML(data []byte) error {
	if len(data) > File {
		return &Error{What: "bytes", Limit: File}
	}
	c := checker{}
	for line := 1; len(data) > 0; {
		doc := document(data)
		if err := c.document(doc, line); err != nil {
			return err
		}
		line += bytes.Count(doc, []byte("\n"))
		data = data[len(doc):]
	}
	return nil
}

// document returns the start of data up to the next line that starts a document. Whatever
// comes before it, a line of "---" does: neither a scalar nor a flow collection may have one
// in it. Each is looked at apart, so that one that is no YAML hides no other from us; some
// readers go on behind it. Directives stay with what they are for. To the parser a document
// may be several.
func document(data []byte) []byte {
	directive := data[0] == '%'
	for i := 0; ; {
		at := bytes.IndexAny(data[i:], "\r\n")
		if at < 0 || i+at+1 == len(data) {
			return data
		}
		i += at + 1
		switch {
		case data[i] == '%':
			directive = true
		case !bytes.HasPrefix(data[i:], []byte("---")) || i+3 < len(data) && graphic(data[i+3]):
		case directive:
			directive = false
		default:
			return data[:i]
		}
	}
}

// graphic is false for all that may be a blank or an end of line, or a part of one.
func graphic(c byte) bool { return c > ' ' && c < 0x7f }

// marks counts what may start a node. No document has more than three nodes for each, and
// three of its own; most have less, as a text has commas too.
func marks(doc []byte) int {
	n := 0
	for i, c := range doc {
		switch c {
		case ':', ',', '[', '{':
			n++
		case '-', '?': // of a block if a blank follows
			if i+1 == len(doc) || !graphic(doc[i+1]) {
				n++
			}
		}
	}
	return n
}

// checker holds the documents of one stream against the bounds.
type checker struct {
	docs    int // so far
	nodes   int // of these
	line    int // before the document
	weights map[*yaml.Node]weight
}

// weight is the size of a node with all below it, as if aliases were expanded.
type weight struct{ nodes, depth int }

func (c *checker) document(doc []byte, line int) error {
	c.line = line - 1
	if c.docs++; c.docs > Documents {
		return c.error("documents", Documents, nil)
	}
	if marks(doc) > Marks {
		return c.error("nodes in a document", Marks, nil)
	}
	dec := yaml.NewDecoder(bytes.NewReader(doc))
	for {
		var root yaml.Node
		if err := dec.Decode(&root); err != nil {
			return nil
		}
		c.weights = map[*yaml.Node]weight{}
		w, err := c.weigh(&root, 0)
		if err != nil {
			return err
		}
		if c.nodes += w.nodes; c.nodes > Nodes {
			return c.error("nodes", Nodes, nil)
		}
	}
}

// weigh takes time linear in the nodes that are written: those with an anchor are weighed
// once. An alias inside of what it stands for has no end, and is too deep.
func (c *checker) weigh(n *yaml.Node, depth int) (weight, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	known, seen := c.weights[n]
	if depth+known.depth > Depth {
		return weight{}, c.error("levels", Depth, n)
	}
	if seen {
		return known, nil
	}
	if n.Anchor != "" {
		c.weights[n] = weight{depth: Depth + 1} // until it is known
	}
	w := weight{nodes: 1}
	if n.Kind == yaml.MappingNode && len(n.Content)/2 > Keys {
		return w, c.error("keys in a mapping", Keys, n)
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && len(key(child)) > KeyBytes {
			return w, c.error("bytes in a key", KeyBytes, child)
		}
		below, err := c.weigh(child, depth+1)
		if err != nil {
			return w, err
		}
		if w.nodes += below.nodes; w.nodes > Nodes {
			return w, c.error("nodes", Nodes, n)
		}
		w.depth = max(w.depth, below.depth+1)
	}
	if n.Anchor != "" {
		c.weights[n] = w
	}
	return w, nil
}

func key(n *yaml.Node) string {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n.Value
}

// error is at a node, or at the start of the document.
func (c *checker) error(what string, limit int, at *yaml.Node) error {
	line := 1
	if at != nil {
		line = at.Line
	}
	return &Error{What: what, Limit: limit, Line: c.line + max(line, 1)}
}
