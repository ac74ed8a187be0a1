package images

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
)

// HostBudget is what [Mirror] will ask one host for. Registries count requests for
// manifests; who does not log in may have few of them.
type HostBudget struct {
	Host      string
	Images    int // whose manifest the store lacks
	Manifests int // requests for them
	// AtLeast says that there will be more: an index that the store lacks does not tell
	// for how many platforms it is.
	AtLeast bool
	Files   int
}

// String is one line for people.
func (b HostBudget) String() string {
	var parts []string
	if b.Images > 0 {
		least := ""
		if b.AtLeast {
			least = "at least "
		}
		parts = append(parts, fmt.Sprintf("%d images by %s%d manifest requests", b.Images, least, b.Manifests))
	}
	if b.Files > 0 {
		parts = append(parts, fmt.Sprintf("%d files", b.Files))
	}
	return b.Host + ": " + strings.Join(parts, ", ")
}

// Budget tells what hosts [Mirror] will ask, and for how much, sorted by host. It dials
// nobody. Debian packages are not counted: apt knows their hosts.
func Budget(ctx context.Context, l *bundle.Lock, s *bundle.Store, o *Options) ([]HostBudget, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	hosts := map[string]*HostBudget{}
	host := func(name string) *HostBudget {
		if hosts[name] == nil {
			hosts[name] = &HostBudget{Host: name}
		}
		return hosts[name]
	}
	seen := map[v1.Hash]bool{}
	for _, im := range l.Images {
		if seen[im.Digest] {
			continue
		}
		seen[im.Digest] = true
		repo, err := c.repository(cmp.Or(im.From, im.Reference))
		if err != nil {
			return nil, err
		}
		lacking, all, err := lacks(ctx, s, im)
		if err != nil {
			return nil, err
		}
		if lacking > 0 {
			h := host(repo.host)
			h.Images++
			h.Manifests += lacking
			h.AtLeast = h.AtLeast || !all
		}
	}
	for _, f := range l.Files {
		have, err := s.Has(ctx, f.Digest, f.Size)
		if err != nil {
			return nil, err
		}
		if u, err := url.Parse(f.URL); err == nil && u.Host != "" && !have && c.Sources["k3s"] == "" {
			host(u.Host).Files++
		}
	}
	var out []HostBudget
	for _, h := range hosts {
		out = append(out, *h)
	}
	slices.SortFunc(out, func(a, b HostBudget) int { return strings.Compare(a.Host, b.Host) })
	return out, nil
}

// lacks counts the manifests of an image that a store lacks, and tells whether these are
// all of them.
func lacks(ctx context.Context, s *bundle.Store, im bundle.LockedImage) (n int, all bool, err error) {
	have, err := s.Has(ctx, im.Digest, -1)
	if err != nil {
		return 0, false, err
	}
	if !have {
		if im.Digest == im.Manifest {
			return 1, true, nil
		}
		return 2, false, nil
	}
	data, err := readManifest(s, im.Digest)
	if err != nil {
		return 0, false, err
	}
	index, err := parseNode(data)
	if err != nil || !index.isIndex() {
		return 0, true, nil // what is malformed Mirror will tell
	}
	all = true
	for _, child := range index.Manifests {
		if isAttestation(child) {
			continue
		}
		if have, err = s.Has(ctx, child.Digest, -1); err != nil {
			return 0, false, err
		}
		if !have {
			n++
			all = all && !child.MediaType.IsIndex()
		}
	}
	return n, all, nil
}
