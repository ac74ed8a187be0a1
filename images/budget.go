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

// HostBudget is what one host will be asked for. Registries count requests for
// manifests; who does not log in may have few of them.
type HostBudget struct {
	Host      string
	Images    int // whose manifest the store lacks
	Manifests int // requests for them
	// AtLeast says that there will be more: an index that the store lacks does not tell
	// for how many platforms it is.
	AtLeast  bool
	Files    int
	Packages int  // of Debian; another archive is asked for those that are not there
	Indexes  bool // of packages
}

// String is one line for people.
func (b HostBudget) String() string {
	var parts []string
	if b.Images > 0 {
		least := ""
		if b.AtLeast {
			least = "at least "
		}
		parts = append(parts, count(b.Images, "image")+" by "+least+count(b.Manifests, "manifest request"))
	}
	if b.Files > 0 {
		parts = append(parts, count(b.Files, "file"))
	}
	if b.Packages > 0 {
		parts = append(parts, count(b.Packages, "package"))
	}
	if b.Indexes {
		parts = append(parts, "package indexes")
	}
	return b.Host + ": " + strings.Join(parts, ", ")
}

func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

type budget map[string]*HostBudget

func (b budget) host(name string) *HostBudget {
	if b[name] == nil {
		b[name] = &HostBudget{Host: name}
	}
	return b[name]
}

func (b budget) sorted() []HostBudget {
	var out []HostBudget
	for _, h := range b {
		out = append(out, *h)
	}
	slices.SortFunc(out, func(a, b HostBudget) int { return strings.Compare(a.Host, b.Host) })
	return out
}

// ResolveBudget tells what hosts [Resolve] will ask, as [Budget] does.
func ResolveBudget(ctx context.Context, d *bundle.Definition, wanted []Wanted, o *Options) ([]HostBudget, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	if wanted, err = merge(wanted); err != nil {
		return nil, err
	}
	hosts := budget{}
	for _, w := range wanted {
		repo, err := c.repository(cmp.Or(w.From, w.Reference))
		if err != nil {
			continue // Resolve tells of all that are malformed
		}
		h := hosts.host(repo.host)
		h.Images++
		h.Manifests++
		h.AtLeast = true
	}
	if release := c.fileSource(d, k3sBase(d)); release.path == "" {
		hosts.host(release.host).Files = len(k3sFiles(d.Arch())) + 1 // and their checksums
	}
	for _, r := range archivesOf(ctx, d) {
		if host := remoteHost(r.uri); host != "" {
			hosts.host(host).Indexes = true
		}
	}
	return hosts.sorted(), nil
}

// SourceBudget tells what hosts [FetchSources] and [MirrorSources] will ask for those of
// the stack's sources that the store lacks or that are not locked, as [Budget] does.
func SourceBudget(ctx context.Context, sources []bundle.Source, locked []bundle.LockedSource, s *bundle.Store, o *Options) ([]HostBudget, error) {
	c, err := newSourceClient(o, sources)
	if err != nil {
		return nil, err
	}
	hosts := budget{}
	for _, src := range sources {
		if c.places[src.Name] != "" {
			continue
		}
		i := slices.IndexFunc(locked, func(l bundle.LockedSource) bool { return l.Name == src.Name && l.URL == src.Archive() })
		if i >= 0 {
			if have, err := s.Has(ctx, locked[i].Digest, locked[i].Size); err != nil {
				return nil, err
			} else if have {
				continue
			}
		}
		from, err := c.upstream(src)
		if err != nil {
			continue // whoever fetches it tells
		}
		hosts.host(from.host).Files++
	}
	return hosts.sorted(), nil
}

// archivesOf lists the archives of a definition. Without an apt that can be asked there
// are none: what is wrong with it is told by who needs them.
func archivesOf(ctx context.Context, d *bundle.Definition) []aptRepository {
	a, err := newApt(ctx, d.Base, d.Arch())
	if err != nil {
		return nil
	}
	defer a.close()
	repos, err := a.repositories(ctx, false)
	if err != nil {
		return nil
	}
	return repos
}

// remoteHost is the host of an archive; empty if it is on disk.
func remoteHost(uri string) string {
	if u, err := url.Parse(uri); err == nil {
		return u.Host
	}
	return ""
}

// Budget tells what hosts [Mirror] will ask, and for how much, sorted by host. It dials
// nobody.
func Budget(ctx context.Context, d *bundle.Definition, l *bundle.Lock, s *bundle.Store, o *Options) ([]HostBudget, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	hosts := budget{}
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
			h := hosts.host(repo.host)
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
		if from := c.fileSource(d, f.URL); from.path == "" && !have {
			hosts.host(from.host).Files++
		}
	}
	lacking, err := lackedPackages(ctx, l.Packages, s)
	if err != nil {
		return nil, err
	}
	if len(lacking) == 0 {
		return hosts.sorted(), nil // nor is apt needed
	}
	repos := archivesOf(ctx, d)
	if len(repos) == 0 {
		return hosts.sorted(), nil
	}
	for _, p := range lacking {
		if host := remoteHost(likelyFirst(repos, p.Archive)[0].uri); host != "" {
			hosts.host(host).Packages++
		}
	}
	return hosts.sorted(), nil
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
		if isAttestation(child) || !isSHA256(child) {
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
