package manifest

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"atoll/bundle"
	"atoll/bundle/stack"
)

// choose makes of what was found what the appliance gets: what the stack and the
// definition add, leave out, make optional, or take from elsewhere. Whatever of these
// nothing comes of is out of date or a slip of the pen, and an error.
func (f *Findings) choose(s *stack.Stack, d *bundle.Definition, components []string) error {
	p := policy{f, s, d, components}
	if err := errors.Join(p.waive(), p.extend()); err != nil {
		return err
	}
	return errors.Join(p.deny(), p.rank(), p.substitute())
}

type policy struct {
	*Findings
	stack      *stack.Stack
	definition *bundle.Definition
	components []string // that are on
}

// stale is an error if an entry of the stack came to nothing, unless that may be because
// of what the definition leaves out or changes.
func (p policy) stale(format string, args ...any) error {
	if len(p.definition.Without) > 0 || len(p.definition.Overlays) > 0 {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// definition is the component of what the definition asks for.
const definition = "definition"

func byUser(p Place) bool { return p.Component == definition }

// waive takes out what the stack's waivers name: images by their canonical names, doubts
// by their text.
func (p policy) waive() error {
	var errs []error
	for _, w := range p.stack.Waivers {
		before := len(p.Images) + len(p.Doubts)
		p.Images = slices.DeleteFunc(p.Images, func(i Image) bool { return i.Reference == w.Image })
		p.Doubts = slices.DeleteFunc(p.Doubts, func(d Doubt) bool { return d.Text == w.Image })
		if len(p.Images)+len(p.Doubts) == before {
			errs = append(errs, p.stale("waived image %q is not in any manifest", w.Image))
		}
	}
	return errors.Join(errs...)
}

// extend adds what no manifest names.
func (p policy) extend() error {
	for _, e := range p.stack.Extras {
		if !slices.Contains(p.components, e.Component) {
			continue
		}
		if err := p.extra(e.Image, Place{Component: e.Component, Field: e.Reason, Shape: ShapeExtra}); err != nil {
			return err
		}
	}
	for i, ref := range p.definition.Images {
		if err := p.extra(ref, Place{Component: definition, Field: fmt.Sprintf("images[%d]", i), Shape: ShapeExtra}); err != nil {
			return err
		}
	}
	slices.SortFunc(p.Images, func(a, b Image) int { return strings.Compare(a.Reference, b.Reference) })
	return nil
}

func (p policy) extra(ref string, at Place) error {
	name, err := bundle.CanonicalReference(ref)
	if err != nil {
		return err
	}
	if (Image{Reference: name}).madeOnNode() {
		return fmt.Errorf("image %q is made on the node, so no appliance can bring it: leave it out of %s", ref, at)
	}
	i := slices.IndexFunc(p.Images, func(i Image) bool { return i.Reference == name })
	if i < 0 {
		i = len(p.Images)
		p.Images = append(p.Images, Image{Reference: name, Tier: bundle.TierRuntime})
	}
	p.Images[i].Where = slices.SortedFunc(slices.Values(append(p.Images[i].Where, at)), comparePlaces)
	return nil
}

// deny takes out what must never be mirrored. If the user asks for it, that is an error.
func (p policy) deny() error {
	var errs []error
	for _, w := range p.stack.Denied {
		name, err := bundle.CanonicalReference(w.Image)
		if err != nil {
			return err
		}
		p.Images = slices.DeleteFunc(p.Images, func(i Image) bool {
			if i.Reference != name && i.Reference != w.Image {
				return false
			}
			if slices.ContainsFunc(i.Where, byUser) {
				errs = append(errs, fmt.Errorf("image %q is not for mirroring: %s", w.Image, w.Reason))
			}
			return true
		})
	}
	return errors.Join(errs...)
}

// rank gives the optional tier to what the stack says is optional, and leaves out what is
// off, or what the definition excludes.
func (p policy) rank() error {
	var errs []error
	for _, o := range p.stack.Optional {
		match, hits := glob(o.Images), 0
		for i := range p.Images {
			im := &p.Images[i]
			if !match(im.Reference) || im.madeOnNode() {
				continue
			}
			hits++
			if im.Tier == bundle.TierRequired {
				continue
			}
			im.Tier = bundle.TierOptional
			if o.Off && !slices.ContainsFunc(im.Where, byUser) {
				im.Omitted = o.Reason
			}
		}
		if hits == 0 {
			errs = append(errs, p.stale("optional image %q is not in any manifest", o.Images))
		}
	}
	for i, pattern := range p.definition.IncludeImages {
		hits := p.each(pattern, func(im *Image) { im.Omitted = "" })
		if hits == 0 {
			errs = append(errs, fmt.Errorf("includeImages[%d]: %q is no image of this stack", i, pattern))
		}
	}
	for i, pattern := range p.definition.ExcludeImages {
		hits := p.each(pattern, func(im *Image) {
			if im.Tier == bundle.TierRequired {
				errs = append(errs, fmt.Errorf("excludeImages[%d]: %s is required: %s", i, im.Reference, im.Where[0]))
			}
			im.Omitted = "excluded by the definition"
		})
		if hits == 0 {
			errs = append(errs, fmt.Errorf("excludeImages[%d]: %q is no image of this stack", i, pattern))
		}
	}
	return errors.Join(errs...)
}

// each calls do for every image that matches the pattern, and says how many do. A pattern
// without "*" may be a reference in its short form. What is made on the node is nobody's
// choice here.
func (p policy) each(pattern string, do func(*Image)) int {
	match, hits := glob(pattern), 0
	short, err := bundle.CanonicalReference(pattern)
	for i := range p.Images {
		if im := &p.Images[i]; !im.madeOnNode() && (match(im.Reference) || err == nil && im.Reference == short) {
			hits++
			do(im)
		}
	}
	return hits
}

// substitute says of images where else they are fetched from.
func (p policy) substitute() error {
	var errs []error
	for _, t := range p.stack.Substitutes {
		from, err := bundle.CanonicalReference(t.From)
		if err != nil {
			return err
		}
		if p.each(t.Image, func(im *Image) { im.From = from }) == 0 {
			errs = append(errs, p.stale("substitute for %q: it is not in any manifest", t.Image))
		}
	}
	return errors.Join(errs...)
}

// glob matches a whole string; "*" stands for anything.
func glob(pattern string) func(string) bool {
	re := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$")
	return re.MatchString
}
