// Package sbom makes an appliance's bill of materials: an SPDX 2.3 document
// (https://spdx.github.io/spdx-spec/v2.3/) of its Debian packages with their declared
// licences, its images, the Go modules of the program that runs on the node, the files of
// the k3s release, and the sources that its manifests were rendered from.
//
// The same input gives the same bytes: nothing in it is the time or place of its making.
//
// Matchable errors: [bundle.ErrIncomplete], [bundle.CorruptError].
package sbom

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/github/go-spdx/v2/spdxexp/spdxlicenses"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// Input is what a bill of materials is made from.
type Input struct {
	Definition *bundle.Definition
	Lock       *bundle.Lock
	Sources    []bundle.Source // of the stack
	// Program is the file in the store that runs on the node: a Go program.
	Program bundle.File
	// Version of atoll.
	Version string
	// Store has the program and the locked packages.
	Store *bundle.Store
	// Cache is a folder that keeps what was read of packages. Empty keeps nothing.
	Cache string
	// Progress is told how many bytes of the packages are read, by several goroutines at
	// once. Nil is fine.
	Progress func(done, total int64)
}

// Summary says what a bill of materials lists.
type Summary struct {
	Packages int // Debian packages
	Licensed int // those of them whose licences it declares
	Images   int
	Modules  int // Go modules of the program
	Files    int // of the k3s release
	Sources  int
}

// Make makes the document. A package that is not in the store, or that is none, is an error.
func Make(ctx context.Context, in Input) ([]byte, *Summary, error) {
	b := &builder{
		in:    in,
		doc:   &spdx.Document{},
		taken: map[common.ElementID]bool{},
		terms: map[string]*spdx.OtherLicense{},
		sum:   &Summary{},
	}
	if err := b.build(ctx); err != nil {
		return nil, nil, fmt.Errorf("making the bill of materials: %w", err)
	}
	data, err := b.encode()
	if err != nil {
		return nil, nil, fmt.Errorf("making the bill of materials: %w", err)
	}
	return data, b.sum, nil
}

// builder adds elements to a document.
type builder struct {
	in    Input
	doc   *spdx.Document
	taken map[common.ElementID]bool
	terms map[string]*spdx.OtherLicense // licences that SPDX does not know, by identifier
	sum   *Summary
	errs  []error
}

const documentID = "DOCUMENT"

func (b *builder) build(ctx context.Context) error {
	lock, err := b.in.Lock.Encode()
	if err != nil {
		return err
	}
	b.head()
	appliance := b.add("appliance", b.in.Definition.Name, "", &spdx.Package{
		PackageName:           b.in.Definition.Name,
		PackageVersion:        bundle.DigestOf(lock).String(),
		PackageComment:        fmt.Sprintf("An appliance for %s. Its version is the digest of its lock.", b.in.Lock.Platform),
		PrimaryPackagePurpose: "INSTALL",
	})
	b.relate(documentID, common.TypeRelationshipDescribe, appliance)
	if err := b.addPackages(ctx, appliance); err != nil {
		return err
	}
	b.addImages(appliance)
	b.addSources(appliance)
	b.addK3s(appliance)
	if err := b.addProgram(appliance); err != nil {
		return err
	}
	return errors.Join(b.errs...)
}

// head writes what the document says of itself.
func (b *builder) head() {
	list := strings.Split(spdxlicenses.LicenseListVersion(), ".")
	b.doc.SPDXVersion = spdx.Version
	b.doc.DataLicense = spdx.DataLicense
	b.doc.SPDXIdentifier = documentID
	b.doc.DocumentName = b.in.Definition.Name
	b.doc.CreationInfo = &spdx.CreationInfo{
		LicenseListVersion: strings.Join(list[:min(len(list), 2)], "."), // major.minor, by the specification
		Creators:           []common.Creator{{CreatorType: "Tool", Creator: "atoll-" + b.in.Version}},
		Created:            b.in.Lock.Epoch.UTC().Format(time.RFC3339),
		CreatorComment:     "The time is that of the newest package index that the lock was made from.",
	}
}

const noAssertion = "NOASSERTION"

// add adds a package to the document and gives its identifier, which is made of the kind of
// package, its name and version.
func (b *builder) add(kind, name, version string, p *spdx.Package) common.ElementID {
	p.PackageSPDXIdentifier = elementID(kind, name, version)
	if b.taken[p.PackageSPDXIdentifier] {
		b.errs = append(b.errs, fmt.Errorf("there are two of %s %s %s", kind, name, version))
	}
	b.taken[p.PackageSPDXIdentifier] = true
	p.PackageDownloadLocation = cmp.Or(p.PackageDownloadLocation, noAssertion)
	p.PackageLicenseConcluded = noAssertion // nobody has examined the files
	p.PackageLicenseDeclared = cmp.Or(p.PackageLicenseDeclared, noAssertion)
	p.PackageCopyrightText = noAssertion
	b.doc.Packages = append(b.doc.Packages, p)
	return p.PackageSPDXIdentifier
}

// elementID is the same for the same things, and no other's: what cannot be written in an
// identifier is told apart by a checksum.
func elementID(kind, name, version string) common.ElementID {
	s := kind + "-" + name
	if version != "" {
		s += "-" + version
	}
	if id := idString(s); id != s {
		return common.ElementID(id + "-" + bundle.DigestOf([]byte(s)).Hex[:12])
	}
	return common.ElementID(s)
}

func (b *builder) relate(from common.ElementID, how string, to common.ElementID) {
	b.doc.Relationships = append(b.doc.Relationships, &spdx.Relationship{
		RefA: common.DocElementID{ElementRefID: from}, Relationship: how, RefB: common.DocElementID{ElementRefID: to},
	})
}

// term gives the identifier of a licence that SPDX does not know, and puts it into the document.
func (b *builder) term(name, text string) string {
	id := licenseRef(name, text)
	if b.terms[id] == nil {
		const longest = 200
		t := &spdx.OtherLicense{LicenseIdentifier: id, ExtractedText: text, LicenseName: cmp.Or(cut(name, longest), noAssertion)}
		if text == "" {
			t.ExtractedText = "The copyright file names the licence " + t.LicenseName + " and does not have its text."
		}
		b.terms[id] = t
		b.doc.OtherLicenses = append(b.doc.OtherLicenses, t)
	}
	return id
}

// cut gives at most n bytes of s.
func cut(s string, n int) string { return strings.ToValidUTF8(s[:min(len(s), n)], "") }

// encode sorts the document, names it after its content, and writes it.
func (b *builder) encode() ([]byte, error) {
	slices.SortFunc(b.doc.Packages, func(x, y *spdx.Package) int {
		return cmp.Compare(x.PackageSPDXIdentifier, y.PackageSPDXIdentifier)
	})
	slices.SortFunc(b.doc.OtherLicenses, func(x, y *spdx.OtherLicense) int {
		return cmp.Compare(x.LicenseIdentifier, y.LicenseIdentifier)
	})
	slices.SortFunc(b.doc.Relationships, func(x, y *spdx.Relationship) int {
		return cmp.Or(cmp.Compare(x.RefA.ElementRefID, y.RefA.ElementRefID), cmp.Compare(x.Relationship, y.Relationship),
			cmp.Compare(x.RefB.ElementRefID, y.RefB.ElementRefID))
	})
	nameless, err := b.write()
	if err != nil {
		return nil, err
	}
	// Where the specification wants a unique URI it is common to take a random one.
	b.doc.DocumentNamespace = "https://spdx.org/spdxdocs/" + b.in.Definition.Name + "-" + bundle.DigestOf(nameless).Hex
	data, err := b.write()
	if err == nil && len(data) > bounds.Document {
		err = fmt.Errorf("it has %d bytes, more than %d", len(data), bounds.Document)
	}
	return data, err
}

func (b *builder) write() ([]byte, error) {
	var buf bytes.Buffer
	if err := spdxjson.Write(b.doc, &buf, spdxjson.Indent("  "), spdxjson.EscapeHTML(false)); err != nil {
		return nil, err
	}
	return Escape(buf.Bytes()), nil
}

// Escape writes what cannot be seen, like the controls of a terminal, as JSON's escapes:
// names and texts are other people's. What Make made needs it no more.
func Escape(data []byte) []byte {
	if bytes.IndexFunc(data, unseen) < 0 {
		return data
	}
	var buf bytes.Buffer
	for _, r := range string(data) {
		if !unseen(r) {
			buf.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&buf, `\u%04x`, unit)
		}
	}
	return buf.Bytes()
}

func unseen(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
