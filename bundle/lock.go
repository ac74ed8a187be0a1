package bundle

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.yaml.in/yaml/v3"
)

// lockVersion is the version of the lock's format. A lock of another version is refused.
const lockVersion = 1

// MaxSize is the most bytes that an image, a file, a package or a source may have. That is
// more than a disk of an appliance holds, and so little that no sum over a lock overflows.
const MaxSize = 1 << 40

// Lock is exactly what an appliance is made of: the content of appliance.lock.
// Every list is sorted, so the same input gives the same bytes.
type Lock struct {
	Version int `yaml:"version"`
	// Definition is the checksum of the definition that the lock was made from.
	Definition v1.Hash `yaml:"definition"`
	// Manifests is the digest of the stack's rendered plan (see [Plan]).
	Manifests v1.Hash `yaml:"manifests"`
	// Epoch is the time that everything derived from the lock carries: the date
	// of the newest package index that the lock was made from.
	Epoch    time.Time       `yaml:"epoch"`
	Platform string          `yaml:"platform"`
	Sources  []LockedSource  `yaml:"sources,omitempty"`
	Images   []LockedImage   `yaml:"images"`
	Files    []LockedFile    `yaml:"files"`
	Packages []LockedPackage `yaml:"packages"`
}

// Tiers of an image.
const (
	TierRequired = "required" // a pod needs it while the stack is installed
	TierRuntime  = "runtime"  // something that is installed starts it later
	TierOptional = "optional" // a user may choose it, and need not
)

// LockedImage is one image under one name.
type LockedImage struct {
	// Reference is the canonical name: host, repository and tag or digest,
	// like docker.io/library/busybox:1.28.
	Reference string `yaml:"reference"`
	// From is the name that the image is fetched under, if that is another one.
	From string `yaml:"from,omitempty"`
	// Digest is what the reference pointed at: a manifest, or an index of them.
	Digest v1.Hash `yaml:"digest"`
	// Manifest is the digest of the platform's manifest; equal to Digest if that is no index.
	Manifest v1.Hash `yaml:"manifest"`
	// Size is the bytes of the platform's manifest, config and compressed layers.
	Size int64 `yaml:"size"`
	// Tier says when the image is needed.
	Tier string `yaml:"tier"`
	// Where says what needs the image, one line per place.
	Where []string `yaml:"where"`
}

// LockedFile is a file that is no image: a part of the k3s release.
type LockedFile struct {
	// Name is the file's name in its release.
	Name string `yaml:"name"`
	// URL is where it is fetched from: http, https, or a folder's file.
	URL    string  `yaml:"url"`
	Digest v1.Hash `yaml:"digest"`
	Size   int64   `yaml:"size"`
}

// LockedPackage is one Debian package of the base OS.
type LockedPackage struct {
	Name    string `yaml:"name"`
	Version string `yaml:"version"`
	// Archive is the label of the archive (the Release file's Label), like Debian or Debian-Security.
	Archive string `yaml:"archive"`
	// Path is the package's file below the archive's root, like pool/main/….
	Path   string  `yaml:"path"`
	Digest v1.Hash `yaml:"digest"`
	Size   int64   `yaml:"size"`
	// Unauthenticated says that no signature vouched for the package when it was locked:
	// the definition says trusted=yes of a source that has it.
	Unauthenticated bool `yaml:"unauthenticated,omitempty"`
}

// LockedSource is a [Source] as it was read.
type LockedSource struct {
	Name string `yaml:"name"`
	// URL is where it is fetched from.
	URL string `yaml:"url"`
	// Tree is the git tree hash of what was unpacked; empty for a file.
	Tree string `yaml:"tree,omitempty"`
	// Modified says that the tree or file is not the one that the stack names, on the user's word.
	Modified bool `yaml:"modified,omitempty"`
	// FirstSight says that nobody vouches for it: the stack states no hash, so it was taken
	// as it was when it was first locked. Every later lock holds it to that.
	FirstSight bool `yaml:"firstSight,omitempty"`
	// Digest and Size are of the file, or of the tar that the tree is kept as.
	Digest v1.Hash `yaml:"digest"`
	Size   int64   `yaml:"size"`
}

// ParseLock reads a lock. The name is used in errors. An unknown field, another
// version or a value that is not of the grammar of what it stands for is an error.
func ParseLock(name string, data []byte) (*Lock, error) {
	l, err := decodeLock(data)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", name, err)
	}
	if l.Version != lockVersion {
		return nil, fmt.Errorf("parsing %s: version %d is not %d: %w", name, l.Version, lockVersion, ErrStale)
	}
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("parsing %s: %w", name, err)
	}
	return l, nil
}

// Encode returns the lock's bytes: sorted, with a fixed head. What [ParseLock] would
// refuse is an error.
func (l *Lock) Encode() ([]byte, error) {
	s := *l
	s.Version = lockVersion
	s.Epoch = l.Epoch.UTC().Truncate(time.Second)
	s.Sources = slices.SortedFunc(slices.Values(l.Sources), func(a, b LockedSource) int { return cmp.Compare(a.Name, b.Name) })
	s.Images = slices.SortedFunc(slices.Values(l.Images), func(a, b LockedImage) int { return cmp.Compare(a.Reference, b.Reference) })
	s.Files = slices.SortedFunc(slices.Values(l.Files), func(a, b LockedFile) int { return cmp.Compare(a.Name, b.Name) })
	s.Packages = slices.SortedFunc(slices.Values(l.Packages), func(a, b LockedPackage) int { return cmp.Compare(a.Name, b.Name) })
	for i, im := range s.Images {
		where := slices.Clone(im.Where) // the keys of manifests are among it, and may be anything
		for j := range where {
			where[j] = line(where[j])
		}
		slices.Sort(where)
		s.Images[i].Where = slices.Compact(where)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("encoding lock: %w", err)
	}
	var buf bytes.Buffer
	buf.WriteString("# Written by \"atoll lock\". Review it, commit it, do not edit it.\n")
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := enc.Encode(&s); err != nil {
		return nil, fmt.Errorf("encoding lock: %w", err)
	}
	return buf.Bytes(), enc.Close()
}

// Check says whether the lock still fits the definition and the sources of its stack.
// The error wraps [ErrStale]. Whether what they render to is the same is for who renders
// them to say: it is Manifests.
func (l *Lock) Check(d *Definition, sources []Source) error {
	if l.Platform != d.Platform {
		return fmt.Errorf("%w: made for platform %s, the definition has %s", ErrStale, l.Platform, d.Platform)
	}
	if sum := d.Checksum(); sum != l.Definition {
		return fmt.Errorf("%w: made from another definition (checksum %s, now %s)", ErrStale, l.Definition, sum)
	}
	if len(sources) != len(l.Sources) {
		return fmt.Errorf("%w: made from %d sources, the stack has %d", ErrStale, len(l.Sources), len(sources))
	}
	for _, s := range sources {
		i := slices.IndexFunc(l.Sources, func(l LockedSource) bool { return l.Name == s.Name })
		if i < 0 {
			return fmt.Errorf("%w: has no source %s", ErrStale, s.Name)
		}
		have := l.Sources[i]
		other := s.Tree != "" && have.Tree != s.Tree || s.SHA256 != "" && have.Digest.Hex != s.SHA256
		other = other || have.FirstSight == s.Stated()
		if have.URL != s.Archive() || other && !have.Modified {
			return fmt.Errorf("%w: source %s is another one now: it was locked from %s", ErrStale, s.Name, have.URL)
		}
	}
	return nil
}
