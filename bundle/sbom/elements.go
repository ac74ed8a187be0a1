package sbom

import (
	"cmp"
	"context"
	"debug/buildinfo"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	packageurl "github.com/package-url/packageurl-go"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
)

// addPackages adds the Debian packages.
func (b *builder) addPackages(ctx context.Context, appliance common.ElementID) error {
	debs, err := readPackages(ctx, b.in)
	if err != nil {
		return err
	}
	byName := map[string]*deb{}
	for _, d := range debs {
		byName[d.Package] = d
	}
	for i, p := range b.in.Lock.Packages {
		d := debs[i]
		source := cmp.Or(d.Source, d.Package)
		e := &spdx.Package{
			PackageName:      p.Name,
			PackageVersion:   p.Version,
			PackageFileName:  path.Base(p.Path),
			PackageSupplier:  supplier(p.Archive),
			PackageChecksums: sha256Of(p.Digest),
			PackageSourceInfo: fmt.Sprintf("Built from the Debian source package %s; %s of the archive %s.",
				source, p.Path, cmp.Or(p.Archive, "that has no label")),
			PackageComment: sizeOf(p.Size),
			PackageExternalReferences: b.purl("deb", vendor(p.Archive), p.Name, p.Version,
				map[string]string{"arch": d.Architecture, "distro": b.in.Definition.Base.Suite}),
		}
		if e.PackageLicenseDeclared, err = b.declared(d, byName); err != nil {
			e.PackageLicenseComments = "Nothing is asserted: " + err.Error() + "."
		} else {
			e.PackageLicenseComments = "Declared by the package's copyright file, which is of all files of its source package."
			b.sum.Licensed++
		}
		b.relate(appliance, common.TypeRelationshipContains, b.add("deb", p.Name, p.Version, e))
		b.sum.Packages++
	}
	return nil
}

// declared is what the copyright file of a package declares.
func (b *builder) declared(d *deb, byName map[string]*deb) (string, error) {
	text, err := copyrightOf(d, byName)
	if err != nil {
		return "", err
	}
	c, err := parseCopyright(text)
	if err != nil {
		return "", err
	}
	return c.expression(b.term), nil
}

// supplier is who runs an archive of packages, by its label.
func supplier(archive string) *common.Supplier {
	switch {
	case archive == "":
		return &common.Supplier{Supplier: noAssertion}
	case strings.HasPrefix(archive, "Debian"): // also Debian-Security and backports
		return &common.Supplier{SupplierType: "Organization", Supplier: "Debian"}
	}
	return &common.Supplier{SupplierType: "Organization", Supplier: archive}
}

// vendor is the namespace of an archive's packages.
func vendor(archive string) string {
	if s := supplier(archive); s.SupplierType != "" {
		return strings.ToLower(s.Supplier)
	}
	return "debian"
}

// addImages adds the images, each with the digest of its name and, if that is an index, of
// the platform's manifest.
func (b *builder) addImages(appliance common.ElementID) {
	for _, im := range b.in.Lock.Images {
		host, repository, tag, _, err := bundle.SplitReference(im.Reference)
		if err != nil {
			b.errs = append(b.errs, err)
			continue
		}
		e := &spdx.Package{
			PackageName:             host + "/" + repository,
			PackageVersion:          cmp.Or(tag, im.Digest.String()),
			PackageDownloadLocation: manifestURL(cmp.Or(im.From, im.Reference), im.Digest),
			PackageChecksums:        sha256Of(im.Digest),
			PackageComment: fmt.Sprintf("Image %s for %s, whose manifest is %s. %s",
				im.Reference, b.in.Lock.Platform, im.Manifest, sizeOf(im.Size)),
			PrimaryPackagePurpose: "CONTAINER",
		}
		_, arch, _ := strings.Cut(b.in.Lock.Platform, "/")
		for _, digest := range slices.Compact([]v1.Hash{im.Digest, im.Manifest}) {
			q := map[string]string{"repository_url": host + "/" + repository, "tag": tag}
			if digest == im.Manifest {
				q["arch"] = arch
			}
			e.PackageExternalReferences = append(e.PackageExternalReferences,
				b.purl("oci", "", path.Base(repository), digest.String(), q)...)
		}
		b.relate(appliance, common.TypeRelationshipContains, b.add("image", im.Reference, "", e))
		b.sum.Images++
	}
}

// manifestURL is where a registry serves the manifest, by the OCI distribution specification.
func manifestURL(reference string, digest v1.Hash) string {
	host, repository, _, _, err := bundle.SplitReference(reference)
	if err != nil {
		return ""
	}
	if host == "docker.io" {
		host = "registry-1.docker.io"
	}
	return "https://" + host + "/v2/" + repository + "/manifests/" + digest.String()
}

// addSources adds the trees and files that the manifests were rendered from.
func (b *builder) addSources(appliance common.ElementID) {
	for _, l := range b.in.Lock.Sources {
		var s bundle.Source
		if i := slices.IndexFunc(b.in.Sources, func(s bundle.Source) bool { return s.Name == l.Name }); i >= 0 {
			s = b.in.Sources[i]
		}
		if l.Modified { // it is not what is there
			s, l.URL = bundle.Source{}, ""
		}
		e := &spdx.Package{
			PackageName:             l.Name,
			PackageVersion:          cmp.Or(s.Ref, s.Commit, l.Digest.String()),
			PackageDownloadLocation: webURL(l.URL),
			PackageChecksums:        sha256Of(l.Digest),
			PackageComment:          sizeOf(l.Size),
			PrimaryPackagePurpose:   "SOURCE",
		}
		if s.Repository != "" && s.Commit != "" {
			e.PackageDownloadLocation = "git+" + s.Repository + "@" + s.Commit
		}
		if l.Tree != "" {
			e.PackageComment = "The checksum is that of the tar that the tree is kept as. " + e.PackageComment
			e.PackageExternalReferences = gitoid("tree", l.Tree)
		}
		if s.Commit != "" {
			e.PackageExternalReferences = append(e.PackageExternalReferences, gitoid("commit", s.Commit)...)
		}
		if l.Modified {
			e.PackageComment = "It is not what its origin has, on the word of whoever locked it. " + e.PackageComment
		}
		b.relate(appliance, common.TypeRelationshipGeneratedFrom, b.add("source", l.Name, "", e))
		b.sum.Sources++
	}
}

// addK3s adds the k3s release, and its files as packages of their own: for what it calls a
// file the specification wants a SHA-1.
func (b *builder) addK3s(appliance common.ElementID) {
	version := b.in.Definition.K3s.Version
	release := b.add("k3s", "release", "", &spdx.Package{
		PackageName: "k3s", PackageVersion: version, PrimaryPackagePurpose: "APPLICATION",
		PackageExternalReferences: b.purl("generic", "", "k3s", version, nil),
	})
	b.relate(appliance, common.TypeRelationshipContains, release)
	for _, f := range b.in.Lock.Files {
		id := b.add("k3s-file", f.Name, "", &spdx.Package{
			PackageName: f.Name, PackageVersion: version, PackageFileName: f.Name,
			PackageDownloadLocation: webURL(f.URL),
			PackageChecksums:        sha256Of(f.Digest),
			PackageComment:          sizeOf(f.Size),
			PrimaryPackagePurpose:   "FILE",
		})
		b.relate(release, common.TypeRelationshipContains, id)
		b.sum.Files++
	}
}

// addProgram adds the program that runs on the node, and the Go modules that it says it is
// linked from.
func (b *builder) addProgram(appliance common.ElementID) error {
	p := b.in.Program
	f, err := b.in.Store.Open(p.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := buildinfo.Read(f)
	if err != nil {
		return fmt.Errorf("reading what the node's program is made of: %w", err)
	}
	program := b.add("program", p.Name, "", &spdx.Package{
		PackageName:           p.Name,
		PackageVersion:        info.Main.Version,
		PackageFileName:       p.Name,
		PackageChecksums:      sha256Of(p.Digest),
		PackageComment:        sizeOf(p.Size),
		PrimaryPackagePurpose: "APPLICATION",
	})
	b.relate(appliance, common.TypeRelationshipContains, program)
	// The standard library is a module to those who look for what is vulnerable.
	std := &debug.Module{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")}
	for _, m := range append([]*debug.Module{std}, info.Deps...) {
		b.relate(program, common.TypeRelationshipStaticLink, b.addModule(m))
		b.sum.Modules++
	}
	return nil
}

func (b *builder) addModule(m *debug.Module) common.ElementID {
	e := &spdx.Package{PrimaryPackagePurpose: "LIBRARY"}
	folder := false
	switch r := m.Replace; {
	case r == nil:
	case strings.HasPrefix(r.Path, ".") || path.IsAbs(r.Path):
		folder = true
		e.PackageComment = fmt.Sprintf("A folder replaces version %s.", m.Version)
		m = &debug.Module{Path: m.Path, Version: r.Version}
	default:
		e.PackageComment = fmt.Sprintf("It replaces %s %s.", m.Path, m.Version)
		m = r
	}
	e.PackageName, e.PackageVersion = m.Path, m.Version
	if m.Sum != "" {
		e.PackageSourceInfo = "go.sum has " + m.Sum
	}
	if !folder { // which others know by no URL
		namespace, name := path.Split(m.Path)
		e.PackageExternalReferences = b.purl("golang", strings.Trim(namespace, "/"), name, m.Version, nil)
	}
	return b.add("go", m.Path, m.Version, e)
}

// purl makes a reference by package URL (https://github.com/package-url/purl-spec).
func (b *builder) purl(kind, namespace, name, version string, qualifiers map[string]string) []*spdx.PackageExternalReference {
	for k, v := range qualifiers {
		if v == "" {
			delete(qualifiers, k)
		}
	}
	p := packageurl.NewPackageURL(kind, namespace, name, version, packageurl.QualifiersFromMap(qualifiers), "")
	if err := p.Normalize(); err != nil {
		b.errs = append(b.errs, fmt.Errorf("naming %s %s: %w", kind, name, err))
		return nil
	}
	return []*spdx.PackageExternalReference{{
		Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: p.String(),
	}}
}

var sha1Hex = regexp.MustCompile(`^[0-9a-f]{40}$`)

// gitoid makes a reference to an object of git by its SHA-1, if it is one.
func gitoid(kind, hex string) []*spdx.PackageExternalReference {
	if !sha1Hex.MatchString(hex) {
		return nil
	}
	return []*spdx.PackageExternalReference{{
		Category: common.CategoryPersistentId, RefType: common.TypePersistentIdGitoid, Locator: "gitoid:" + kind + ":sha1:" + hex,
	}}
}

func sha256Of(h v1.Hash) []common.Checksum {
	return []common.Checksum{{Algorithm: common.SHA256, Value: h.Hex}}
}

func sizeOf(bytes int64) string { return fmt.Sprintf("Size: %d bytes.", bytes) }

// webURL is where others can fetch a file; empty if it came from a folder.
func webURL(s string) string {
	if u, err := url.Parse(s); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
		return s
	}
	return ""
}
