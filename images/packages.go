package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
)

// ResolvePackages finds the Debian packages that an installation of packages needs
// from nothing: themselves, the essential and required ones, and what all of these
// depend on. Signatures of the archives are checked by apt with the machine's keys: one
// that has none which holds is a [bundle.ErrUnauthenticated], unless the definition says of
// it that it is trusted. The time is the date of the newest package index. No privileges are needed.
func ResolvePackages(ctx context.Context, base bundle.Base, arch string, packages []string, o *Options) ([]bundle.LockedPackage, time.Time, error) {
	for _, p := range packages {
		if !bundle.IsPackageName(p) {
			return nil, time.Time{}, fmt.Errorf("%q is not the name of a Debian package", p)
		}
	}
	a, err := newApt(ctx, base, arch)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer a.close()
	if _, err := a.run(ctx, "apt-get", "update", "-q"); err != nil {
		return nil, time.Time{}, fmt.Errorf("reading package indexes of Debian %s: %w", base.Suite, asUnauthenticated(err))
	}
	epoch, err := a.newest()
	if err != nil {
		return nil, time.Time{}, err
	}
	repos, err := a.repositories(ctx, true)
	if err != nil {
		return nil, time.Time{}, err
	}
	args := append([]string{"install", "--print-uris", "-y", "-qq", "--", "?essential", "?priority(required)"}, packages...)
	out, err := a.run(ctx, "apt-get", args...)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("choosing packages of Debian %s: %w", base.Suite, err)
	}
	var locked []bundle.LockedPackage
	for line := range strings.Lines(out) {
		p, err := parseURI(strings.TrimSpace(line), arch, repos)
		if err != nil {
			return nil, time.Time{}, err
		}
		locked = append(locked, p)
	}
	if len(locked) == 0 {
		return nil, time.Time{}, fmt.Errorf("choosing packages of Debian %s: apt-get chose none", base.Suite)
	}
	o.withDefaults().Log.Debug("resolved packages", "suite", base.Suite, "wanted", len(packages), "all", len(locked), "epoch", epoch)
	slices.SortFunc(locked, func(a, b bundle.LockedPackage) int { return cmp.Compare(a.Name, b.Name) })
	return locked, epoch, nil
}

// parseURI reads a line of "apt-get --print-uris": 'URI' NAME_VERSION_ARCH.deb SIZE SHA256:HEX.
// That command does not ask whether a key vouches for the package: its repository says so.
func parseURI(line, arch string, repos []aptRepository) (p bundle.LockedPackage, err error) {
	bad := fmt.Errorf("apt-get printed %q, which is no package with a SHA256", line)
	f := strings.Fields(line)
	if len(f) != 4 {
		return p, bad
	}
	uri, err := url.PathUnescape(strings.Trim(f[0], "'"))
	if err != nil {
		return p, bad
	}
	file, err := url.PathUnescape(f[1]) // an epoch's colon is escaped
	if err != nil {
		return p, bad
	}
	name := strings.Split(file, "_")
	size, err := strconv.ParseInt(f[2], 10, 64)
	hex, ok := strings.CutPrefix(f[3], "SHA256:")
	if err != nil || !ok || len(name) != 3 || !bundle.ForArchitecture(strings.TrimSuffix(name[2], ".deb"), arch) {
		return p, bad
	}
	digest, err := v1.NewHash("sha256:" + hex)
	if err != nil {
		return p, bad
	}
	p = bundle.LockedPackage{Name: name[0], Version: name[1], Digest: digest, Size: size}
	found := false
	for _, r := range repos {
		path, ok := strings.CutPrefix(uri, r.uri)
		if !ok {
			continue
		}
		if !found {
			p.Archive, p.Path = r.label, strings.TrimPrefix(path, "./") // of an archive without suites
			found = true
		}
		// A path of one archive may lead into another, and two suites have one pool.
		p.Unauthenticated = p.Unauthenticated || r.unauthenticated
	}
	if !found {
		return p, fmt.Errorf("package %s is at %s, which is in none of the sources", p.Name, uri)
	}
	return p, p.Validate()
}

// aptRepository is where an archive's files are.
type aptRepository struct {
	uri             string // ends in a slash
	label           string // of its Release file; empty before an update
	unauthenticated bool   // the definition trusts it without a signature; known after an update
}

// repositories lists the archives of the sources. Their labels are known once
// their indexes are read; then one whose signature was not checked is an error, unless
// its source is trusted.
func (a *apt) repositories(ctx context.Context, read bool) ([]aptRepository, error) {
	args := []string{"indextargets", "--format", "$(TRUSTED)\t$(SOURCESENTRY)\t$(REPO_URI)\t$(LABEL)", "Created-By: Packages"}
	if !read {
		args = []string{"indextargets", "--no-release-info", "--format", "\t\t$(REPO_URI)\t", "Created-By: Packages"}
	}
	out, err := a.run(ctx, "apt-get", args...)
	if err != nil {
		return nil, fmt.Errorf("listing apt sources: %w", err)
	}
	var repos []aptRepository
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimRight(line, "\n"), "\t", 4)
		if len(f) != 4 || f[2] == "" {
			return nil, fmt.Errorf("listing apt sources: apt-get printed %q", line)
		}
		r := aptRepository{uri: f[2], label: f[3]}
		if read {
			r.unauthenticated = a.isTrusted(f[1])
			if f[0] != "yes" {
				return nil, fmt.Errorf("package index at %s: %w", r.uri, bundle.ErrUnauthenticated)
			}
		}
		if !slices.Contains(repos, r) {
			repos = append(repos, r)
		}
	}
	if len(repos) == 0 {
		return nil, errors.New("listing apt sources: there are none")
	}
	// The longest first, so that of two that fit a URI the closer one counts.
	slices.SortStableFunc(repos, func(a, b aptRepository) int { return cmp.Compare(len(b.uri), len(a.uri)) })
	return repos, nil
}

// isTrusted says whether an entry of sources, FILE:LINE, is one that needs no signature.
func (a *apt) isTrusted(entry string) bool {
	line, ok := strings.CutPrefix(entry, filepath.Join(a.dir, sourcesList)+":")
	n, err := strconv.Atoi(line)
	return ok && err == nil && a.trusted[n]
}

// unsignedError is what apt says of an archive for which no key vouches.
type unsignedError struct{ error }

func (e unsignedError) Unwrap() []error { return []error{e.error, bundle.ErrUnauthenticated} }

// asUnauthenticated tells such an archive from others that cannot be read. apt has no
// other way to say so than its words.
func asUnauthenticated(err error) error {
	for _, words := range []string{"is not signed", "weak security information", "is no longer signed"} {
		if strings.Contains(err.Error(), words) {
			return unsignedError{err}
		}
	}
	return err
}

// newest gives the newest date among the Release files.
func (a *apt) newest() (time.Time, error) {
	files, err := filepath.Glob(filepath.Join(a.dir, "lists", "*Release"))
	if err != nil {
		return time.Time{}, err
	}
	var newest time.Time
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return time.Time{}, fmt.Errorf("reading package indexes: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			date, ok := strings.CutPrefix(line, "Date: ")
			if !ok {
				continue
			}
			t, err := time.Parse(time.RFC1123, strings.TrimSpace(date))
			if err != nil {
				return time.Time{}, fmt.Errorf("reading date of package index: %w", err)
			}
			if t.After(newest) {
				newest = t
			}
			break
		}
	}
	if newest.IsZero() {
		return time.Time{}, errors.New("no package index has a date")
	}
	return newest.UTC(), nil
}

// addPackages asks for the packages that the store does not have. Any of the
// sources may have them: their bytes are known.
func (m *mirror) addPackages(ctx context.Context, d *bundle.Definition, packages []bundle.LockedPackage) error {
	want, err := lackedPackages(ctx, packages, m.store)
	if err != nil || len(want) == 0 {
		return err // nor is apt needed
	}
	a, err := newApt(ctx, d.Base, d.Arch())
	if err != nil {
		return err
	}
	defer a.close()
	repos, err := a.repositories(ctx, false)
	if err != nil {
		return err
	}
	settings, err := a.settings(ctx, repos)
	if err != nil {
		return err
	}
	from, err := m.archives(settings)
	if err != nil {
		return err
	}
	for _, p := range want {
		dl := download{name: "package " + p.Name, digest: p.Digest, size: p.Size}
		for _, r := range likelyFirst(repos, p.Archive) {
			if src, ok := from.debSource(r.uri, p.Path); ok {
				dl.sources = append(dl.sources, src)
			}
		}
		if len(dl.sources) == 0 {
			return fmt.Errorf("package %s: no apt source is of a kind (http, https, file) that can be fetched from", p.Name)
		}
		m.add(dl)
	}
	return nil
}

func lackedPackages(ctx context.Context, packages []bundle.LockedPackage, s *bundle.Store) ([]bundle.LockedPackage, error) {
	var out []bundle.LockedPackage
	for _, p := range packages {
		have, err := s.Has(ctx, p.Digest, p.Size)
		if err != nil {
			return nil, err
		}
		if !have {
			out = append(out, p)
		}
	}
	return out, nil
}

// likelyFirst puts the security archive before the others for what it published,
// and after them for the rest. It only saves requests: a guess that is wrong is a 404.
func likelyFirst(repos []aptRepository, archive string) []aptRepository {
	security := func(s string) bool { return strings.Contains(strings.ToLower(s), "security") }
	return slices.SortedStableFunc(slices.Values(repos), func(a, b aptRepository) int {
		rank := func(r aptRepository) int {
			if security(r.uri) == security(archive) {
				return 0
			}
			return 1
		}
		return cmp.Compare(rank(a), rank(b))
	})
}

func (a *archives) debSource(repo, path string) (source, bool) {
	u, err := url.Parse(repo)
	if err != nil {
		return source{}, false
	}
	switch u.Scheme {
	case "http", "https":
		// A plus is legal in a path, but stands for a space where a server is careless.
		return a.source(u, repo+strings.ReplaceAll((&url.URL{Path: path}).EscapedPath(), "+", "%2B")), true
	case "file", "copy":
		return source{host: repo, path: filepath.Join(u.Path, path)}, true
	}
	return source{}, false
}
