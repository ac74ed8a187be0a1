package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.yaml.in/yaml/v3"

	"atoll/bundle/bounds"
)

var (
	platformName = regexp.MustCompile(`^linux/[a-z0-9]{1,32}$`)
	sourceName   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,127}$`)
	fileName     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`)
	treeHash     = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// decodeLock reads exactly one document of the fields of [Lock], within bounds.
func decodeLock(data []byte) (*Lock, error) {
	if len(data) > bounds.Lock {
		return nil, fmt.Errorf("has %d bytes, more than %d", len(data), bounds.Lock)
	}
	nodes := 0
	for _, c := range data {
		if strings.IndexByte("\n\r,:[{-", c) >= 0 {
			nodes++
		}
	}
	if nodes > 4*bounds.LockNodes { // a line has a few of these and no part of its own
		return nil, fmt.Errorf("has more than %d parts", bounds.LockNodes)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	switch err := dec.Decode(&doc); {
	case err == io.EOF:
		return nil, errors.New("file is empty")
	case err != nil:
		return nil, err
	}
	if err := dec.Decode(&next); err != io.EOF {
		return nil, errors.New("has a second YAML document")
	}
	left := bounds.LockNodes
	if err := checkLockNode(&doc, 0, &left); err != nil {
		return nil, err
	}
	var l Lock
	dec = yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	return &l, dec.Decode(&l)
}

// checkLockNode refuses what "atoll lock" never writes and what would make a small file
// large or slow.
func checkLockNode(n *yaml.Node, depth int, left *int) error {
	*left--
	switch {
	case *left < 0:
		return fmt.Errorf("has more than %d parts", bounds.LockNodes)
	case depth > bounds.LockDepth:
		return fmt.Errorf("line %d: nested too deeply", n.Line)
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return fmt.Errorf("line %d: a lock has no aliases", n.Line)
	case n.Style&yaml.TaggedStyle != 0:
		return fmt.Errorf("line %d: a lock has no tags", n.Line)
	case n.Kind == yaml.MappingNode && len(n.Content) > 2*bounds.LockKeys:
		return fmt.Errorf("line %d: more than %d fields", n.Line, bounds.LockKeys)
	}
	for _, child := range n.Content {
		if err := checkLockNode(child, depth+1, left); err != nil {
			return err
		}
	}
	return nil
}

// check holds every value against the grammar of what it is.
func (l *Lock) check() error {
	switch {
	case !valid(l.Definition) || !valid(l.Manifests):
		return errors.New("definition or manifests is no digest")
	case !platformName.MatchString(l.Platform):
		return fmt.Errorf("platform %q is not one like linux/amd64", l.Platform)
	case l.Epoch.Year() < 1980 || l.Epoch.Year() > 2099: // what FAT can hold
		return fmt.Errorf("epoch %s is not a time of an archive", l.Epoch)
	}
	errs := []error{
		each("image", l.Images, func(i LockedImage) string { return i.Reference }, LockedImage.check),
		each("source", l.Sources, func(s LockedSource) string { return s.Name }, LockedSource.check),
		each("file", l.Files, func(f LockedFile) string { return f.Name }, LockedFile.check),
		each("package", l.Packages, func(p LockedPackage) string { return p.Name }, LockedPackage.Validate),
	}
	return errors.Join(errs...)
}

// each gives the first error of a list, one that a name is in it twice among them.
func each[T any](what string, list []T, name func(T) string, check func(T) error) error {
	seen := map[string]bool{}
	for _, item := range list {
		if err := check(item); err != nil {
			return err
		}
		if seen[name(item)] {
			return fmt.Errorf("%s %s is there twice", what, name(item))
		}
		seen[name(item)] = true
	}
	return nil
}

func (i LockedImage) check() error {
	if !valid(i.Manifest) || !sound(i.Digest, i.Size) {
		return fmt.Errorf("image %q has no usable digest or size", i.Reference)
	}
	if err := checkReference(i.Reference, i.Digest); err != nil {
		return fmt.Errorf("image %q %w", i.Reference, err)
	}
	if i.From != "" {
		if err := checkReference(i.From, v1.Hash{}); err != nil {
			return fmt.Errorf("image %q: from %q %w", i.Reference, i.From, err)
		}
	}
	if !slices.Contains(Tiers, i.Tier) {
		return fmt.Errorf("image %q: %q is no tier", i.Reference, i.Tier)
	}
	for _, where := range i.Where {
		if !isLine(where) {
			return fmt.Errorf("image %q: where %q is not a line of text", i.Reference, where)
		}
	}
	return nil
}

// checkReference refuses what is no canonical reference, and one that is pinned to
// another digest: what asks for it by its name would not find it.
func checkReference(ref string, digest v1.Hash) error {
	name, err := CanonicalReference(ref)
	if err != nil || name != ref {
		return errors.New("is not a canonical reference")
	}
	if _, _, _, pinned, err := SplitReference(ref); err != nil || pinned != "" && digest != (v1.Hash{}) && pinned != digest.String() {
		return fmt.Errorf("is pinned to another digest than %s", digest)
	}
	return nil
}

func (s LockedSource) check() error {
	switch {
	case !sourceName.MatchString(s.Name):
		return fmt.Errorf("%q is not the name of a source", s.Name)
	case s.Tree != "" && !treeHash.MatchString(s.Tree):
		return fmt.Errorf("source %s: tree %q is not a git tree hash", s.Name, s.Tree)
	case !sound(s.Digest, s.Size):
		return fmt.Errorf("source %s has no usable digest or size", s.Name)
	}
	if err := checkPlace(s.URL); err != nil {
		return fmt.Errorf("source %s: url %w", s.Name, err)
	}
	return nil
}

func (f LockedFile) check() error {
	switch {
	case !fileName.MatchString(f.Name):
		return fmt.Errorf("%q is not the name of a file", f.Name)
	case !sound(f.Digest, f.Size):
		return fmt.Errorf("file %s has no usable digest or size", f.Name)
	}
	if err := checkPlace(f.URL); err != nil {
		return fmt.Errorf("file %s: url %w", f.Name, err)
	}
	return nil
}

// checkPlace refuses what is neither a URL that files are fetched from nor a path.
func checkPlace(place string) error {
	if place == "" || len(place) > bounds.Place || !isLine(place) {
		return fmt.Errorf("%q is neither a URL nor a path", place)
	}
	if !strings.Contains(place, "://") {
		return nil
	}
	u, err := url.Parse(place)
	switch {
	case login.MatchString(place):
		return errors.New("has a user or a password in it") // which an error does not tell
	case err != nil, !slices.Contains([]string{"http", "https", "file"}, u.Scheme), u.Host == "" && u.Scheme != "file":
		return fmt.Errorf("%q is neither http, https nor file", place)
	}
	return nil
}

func sound(h v1.Hash, size int64) bool { return valid(h) && size >= 0 && size <= MaxSize }

func valid(h v1.Hash) bool {
	_, err := v1.NewHash(h.String())
	return err == nil && h.Algorithm == "sha256"
}

// isLine says whether text is one line, with nothing in it that a terminal obeys or hides.
func isLine(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) })
}

// line makes text one line: what is not graphic is written as Go writes it.
func line(s string) string {
	if isLine(s) {
		return s
	}
	quoted := strconv.QuoteToGraphic(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
