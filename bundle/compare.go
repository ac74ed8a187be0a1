package bundle

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Cost is how much of an appliance's images one component needs, in one tier.
type Cost struct {
	Component string
	Tier      string
	Images    int
	// Bytes are those of the images' compressed layers, as if none were shared.
	Bytes int64
}

// Costs lists what each component needs, by tier. An image that several need counts for
// each of them, so these add up to more than [Lock.Total].
func (l *Lock) Costs() []Cost {
	type key struct{ component, tier string }
	sums := map[key]*Cost{}
	for _, im := range l.Images {
		seen := map[string]bool{}
		for _, where := range im.Where {
			component, _, _ := strings.Cut(where, ": ")
			if seen[component] {
				continue
			}
			seen[component] = true
			k := key{component, im.Tier}
			if sums[k] == nil {
				sums[k] = &Cost{Component: component, Tier: im.Tier}
			}
			sums[k].Images++
			sums[k].Bytes += im.Size
		}
	}
	return slices.SortedFunc(func(yield func(Cost) bool) {
		for c := range maps.Values(sums) {
			if !yield(*c) {
				return
			}
		}
	}, func(a, b Cost) int {
		return cmp.Or(cmp.Compare(a.Component, b.Component), cmp.Compare(tierRank(a.Tier), tierRank(b.Tier)))
	})
}

// Total is what all images of a tier need, each counted once; of every tier if it is empty.
func (l *Lock) Total(tier string) Cost {
	total := Cost{Tier: tier}
	seen := map[string]bool{}
	for _, im := range l.Images {
		if tier != "" && im.Tier != tier {
			continue
		}
		total.Images++
		if !seen[im.Manifest.Hex] { // one image under two names
			seen[im.Manifest.Hex] = true
			total.Bytes += im.Size
		}
	}
	return total
}

// Tiers lists the tiers, what is needed most first.
var Tiers = []string{TierRequired, TierRuntime, TierOptional}

func tierRank(tier string) int { return slices.Index(Tiers, tier) }

// Change is an image that two locks differ in. Old or New is nil if one has it not.
type Change struct {
	Reference string
	Old, New  *LockedImage
}

// Bytes is how much larger the image became; negative if smaller.
func (c Change) Bytes() int64 {
	var n int64
	if c.New != nil {
		n += c.New.Size
	}
	if c.Old != nil {
		n -= c.Old.Size
	}
	return n
}

// Diff lists the images that are not the same in two locks, sorted by reference. An
// image is the same if its digest is, and its platform's.
func Diff(before, after *Lock) []Change {
	changes := map[string]*Change{}
	at := func(ref string) *Change {
		if changes[ref] == nil {
			changes[ref] = &Change{Reference: ref}
		}
		return changes[ref]
	}
	for i := range before.Images {
		at(before.Images[i].Reference).Old = &before.Images[i]
	}
	for i := range after.Images {
		at(after.Images[i].Reference).New = &after.Images[i]
	}
	var out []Change
	for _, ref := range slices.Sorted(maps.Keys(changes)) {
		c := changes[ref]
		if c.Old != nil && c.New != nil && c.Old.Digest == c.New.Digest && c.Old.Manifest == c.New.Manifest {
			continue
		}
		out = append(out, *c)
	}
	return out
}

// Find gives the locked images that a name may mean: the one whose canonical name it is,
// in its short form too; else those whose name contains it.
func (l *Lock) Find(name string) []LockedImage {
	if ref, err := CanonicalReference(name); err == nil {
		if i := slices.IndexFunc(l.Images, func(i LockedImage) bool { return i.Reference == ref }); i >= 0 {
			return l.Images[i : i+1]
		}
	}
	var out []LockedImage
	for _, im := range l.Images {
		if strings.Contains(im.Reference, name) {
			out = append(out, im)
		}
	}
	return out
}
