package bounds

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// keysOf is a mapping of n keys.
func keysOf(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: x\n", i)
	}
	return b.String()
}

// bomb holds 10^levels strings when its aliases are expanded.
func bomb(levels int) string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x]\n")
	for i := 1; i <= levels; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	return b.String()
}

// tower is as deep as levels times step when its aliases are expanded, and nowhere as written.
func tower(levels, step int) string {
	var b strings.Builder
	b.WriteString("- &a0 x\n")
	for i := 1; i <= levels; i++ {
		fmt.Fprintf(&b, "- &a%d %s*a%d %s\n", i, strings.Repeat("[", step), i-1, strings.Repeat("]", step))
	}
	return b.String()
}

func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

// fill repeats s up to the size of a file.
func fill(s string) string { return strings.Repeat(s, File/len(s)) }

func TestYAML(t *testing.T) {
	for _, tc := range []struct{ name, yaml, want string }{
		{"empty", "", ""},
		{"small", "a: b\n---\n- c\n", ""},
		{"no YAML", "\x00\xff: [", ""},
		{"keys", keysOf(Keys), ""},
		{"too many keys", "a: b\n---\nc:\n- d\n---\n" + keysOf(Keys+1), "line 6: YAML is too large or too deep: more than 4096 keys in a mapping"},
		{"key", strings.Repeat("k", KeyBytes) + ": v", ""},
		{"long key", "a: b\n? " + strings.Repeat("k", KeyBytes+1) + "\n: v", "line 2: YAML is too large or too deep: more than 1024 bytes in a key"},
		{"long key by an alias", "a: &a " + strings.Repeat("k", KeyBytes+1) + "\n*a : v", "bytes in a key"},
		{"deep", nested(Depth - 1), ""},
		{"too deep", nested(Depth + 1), "levels"},
		{"deeper than the parser goes", nested(100_000), ""},
		{"deep by aliases", tower(Depth/2, 2), "levels"},
		{"cycle", "a: &a [*a]\n", "levels"},
		{"alias bomb", bomb(9), "nodes"},
		{"behind what is no YAML", "a: [\n---\n" + bomb(9), "nodes"},
		{"behind a directive", "%TAG !e! tag:a,2000:\n---\n!e!b\n" + bomb(9), "nodes"},
		{"separator that is none", "[a,\n---b,\n" + nested(Depth) + "]\n", "levels"},
		{"UTF-16", "\xff\xfe" + wide(keysOf(Keys+1)), "keys"},
		{"too long", fill("aa") + "b", "bytes"},
		{"dashes", fill("- \n"), "nodes"},
		{"dashes in UTF-16", "\xff\xfe" + wide(strings.Repeat("-\n", Marks+1)), "nodes"},
		{"flow", "[" + fill("a,")[2:], "nodes"},
		{"documents", fill("---\n"), "documents"},
		{"documents of some size", strings.Repeat("---\n"+strings.Repeat("-\n", 60), Documents), "nodes"},
		{"a long text", "a: |\n  " + fill("b c d ")[8:], ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := YAML([]byte(tc.yaml))
			var bound *Error
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("got %v", err)
			case tc.want != "" && (!errors.As(err, &bound) || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want an Error with %q", err, tc.want)
			}
		})
	}
}

// wide is ASCII in UTF-16, which YAML may be in.
func wide(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.Write([]byte{s[i], 0})
	}
	return b.String()
}

// TestYAMLMemory has the largest inputs that there may be of what costs the most for a byte.
func TestYAMLMemory(t *testing.T) {
	for _, unit := range []string{"- \n", "-\n", "{a,", "a,", "? a\n", "- a #b\n#c\n", "- &a x\n", "---\n", "'\n", "- - "} {
		data := []byte(fill(unit))
		if unit == "{a," || unit == "a," {
			data = []byte("{" + fill("a,")[1:])
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_ = YAML(data)
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 1536 {
			t.Errorf("%q: allocates %d MiB", unit, n)
		}
	}
}

// FuzzYAML holds what passes against a count of its own, made as a decoder goes: along
// aliases.
func FuzzYAML(f *testing.F) {
	for _, s := range []string{"a: b\n", bomb(3), tower(3, 3), "a: &a [*a]\n", "? - a\n: {b: c}\n", "[a: b, c]", "%YAML 1.1\n--- !!map\na: 1\n...\n",
		"- a\r---\r- b", "&a a: *a\n", "a:\n- b: c\n  d: e\n--- |\n x\n", "<<: {a: b}\n", "\xff\xfe-\x00\n\x00", "- \xc2\x85---\xc2\x85a: b", "- - - a", "?", "-", "{a,b}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		passes := YAML(data) == nil
		dec := yaml.NewDecoder(bytes.NewReader(data))
		var total int
		for {
			var root yaml.Node
			if dec.Decode(&root) != nil {
				return
			}
			if n := written(&root); n > 3*marks(data)+3 {
				t.Fatalf("%d nodes of %d marks", n, marks(data))
			}
			budget := Nodes + 1 - total
			if passes && !within(&root, 0, &budget) {
				t.Fatal("passes, and is out of bounds")
			}
			total = Nodes + 1 - budget
		}
	})
}

func written(n *yaml.Node) int {
	sum := 1
	for _, child := range n.Content {
		sum += written(child)
	}
	return sum
}

func within(n *yaml.Node, depth int, budget *int) bool {
	if n.Kind == yaml.AliasNode {
		return within(n.Alias, depth, budget)
	}
	if *budget--; *budget < 0 || depth > Depth || n.Kind == yaml.MappingNode && len(n.Content) > 2*Keys {
		return false
	}
	for _, child := range n.Content {
		if !within(child, depth+1, budget) {
			return false
		}
	}
	return true
}
