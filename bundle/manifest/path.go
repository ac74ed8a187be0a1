package manifest

import (
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
)

// fieldPath is the way to a value, from its last step: so that a step costs the same however
// long the way is. Nil is the root.
type fieldPath struct {
	up   *fieldPath
	sep  string // between what is before and the step
	step string
	size int    // of the text, in bytes
	id   pathID // of all steps
}

// pathID tells paths apart. Whoever writes the keys cannot make two that are the same.
type pathID uint64

var pathSeed = maphash.MakeSeed()

// intoString is the step into YAML or JSON in a string.
const intoString = " >"

func (p *fieldPath) add(sep, step string) *fieldPath {
	n := &fieldPath{up: p, sep: sep, step: step, size: len(sep) + len(step)}
	var before pathID
	if p != nil {
		n.size += p.size
		before = p.id
	}
	n.id = pathID(maphash.Comparable(pathSeed, struct {
		before    pathID
		sep, step string
	}{before, sep, step}))
	return n
}

// key is the step to a key of a mapping.
func (p *fieldPath) key(key string) *fieldPath {
	sep := p.border()
	if strings.ContainsAny(key, `./" `) {
		return p.add(sep, fmt.Sprintf("[%q]", key))
	}
	if p != nil && sep == "" {
		sep = "."
	}
	return p.add(sep, key)
}

// item is the step to an item of a list.
func (p *fieldPath) item(i int) *fieldPath { return p.add(p.border(), "["+strconv.Itoa(i)+"]") }

// border is what a structure in a string starts with.
func (p *fieldPath) border() string {
	if p != nil && p.step == intoString {
		return " "
	}
	return ""
}

func (p *fieldPath) String() string {
	if p == nil {
		return ""
	}
	text := make([]byte, p.size)
	at := p.size
	for ; p != nil; p = p.up {
		at -= copy(text[at-len(p.step):], p.step)
		at -= copy(text[at-len(p.sep):], p.sep)
	}
	return string(text)
}

// is compares a path with a text, and costs little if they differ.
func (p *fieldPath) is(text string) bool {
	if p == nil {
		return text == ""
	}
	return p.size == len(text) && p.String() == text
}

// first is the first step.
func (p *fieldPath) first() string {
	if p == nil {
		return ""
	}
	for p.up != nil {
		p = p.up
	}
	return p.step
}
