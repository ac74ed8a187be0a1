// Package bounds has the bounds on what Atoll parses, all in one table, and holds YAML
// against them before it is decoded. What a parser is given may come from anybody; within
// these bounds no input makes it take much memory or time.
//
// The numbers are the maxima of Kubeflow 26.03, the largest stack meant to be rendered,
// with room. Most are no matter of taste: decoding costs the square of the keys of a
// mapping, a node of YAML costs some 200 bytes, and whoever walks a tree calls itself once
// for each level.
package bounds

import "fmt"

// Bounds on one file, or stream, and on trees of them.
const (
	File  = 16 << 20  // bytes of one file; Kubeflow: 3.7 MB
	Tree  = 256 << 20 // bytes of all files of a tree; Kubeflow, rendered: 12 MB
	Files = 50_000    // files of a tree
)

// Bounds on YAML, and so on JSON. [YAML] holds a stream against them.
const (
	Documents = 50_000    // documents of a stream; Kubeflow, rendered: 675
	Marks     = 1_000_000 // what may start a node, in one document; Kubeflow: 77,000
	Nodes     = 2_000_000 // nodes of all documents, aliases expanded; Kubeflow, rendered: 500,000
	Depth     = 400       // levels, aliases expanded; Kubeflow: 43
	Keys      = 4096      // keys of one mapping; Kubeflow: 66
	KeyBytes  = 1024      // bytes of one key; Kubeflow: 71
)

// Bounds on the search for images.
const (
	Visits    = 10_000_000 // values of all objects, those of YAML in strings too; Kubeflow: 181,000
	Nested    = 4          // YAML in strings in YAML in strings; Kubeflow, in Katib's templates: 2
	PathBytes = 4096       // bytes of the path of keys to a value; Kubeflow: 438
	Places    = 20_000     // places that name an image; Kubeflow: 140
)

// Bounds on files that people write or keep, in bytes.
const (
	Definition  = 1 << 20
	Credentials = 1 << 20  // docker's and podman's configuration, certificates, apt's logins
	KeyFile     = 64 << 10 // a key, a checksum or a signature; real ones have less than 1 KiB
	AptSources  = 1 << 20  // a file of the machine's apt sources
	FirstBoot   = 1 << 20  // the first-boot configuration, of which Ignition holds several copies; a Butane file; its local files
)

// Bounds on a lock.
const (
	Lock      = 8 << 20 // bytes; Kubeflow: 250 kB
	LockNodes = 1 << 19 // nodes of YAML; as each size is bounded too, no sum overflows
	LockDepth = 8       // levels
	LockKeys  = 32      // keys of one mapping
	Place     = 4096    // bytes of what needs an image
)

// Bounds on a bundle, and on the manifests and indexes of images.
const (
	Members     = 1 << 17  // members of the tar; 1,000 images: 6,000
	Document    = 64 << 20 // bytes of a lock or plan in it; Kubeflow: under 13 MiB
	PlanObjects = 1 << 20  // braces of a plan, within its texts too; each may be an object
	Manifest    = 4 << 20  // bytes of a manifest or index.json; registries refuse more
	Elements    = 1 << 17  // commas of one; an index.json of 5,000 images has half of that
	Indexes     = 4        // indexes in an index
)

// Bounds on signatures of a bundle.
const (
	Signatures = 16       // that are looked at
	Payload    = 64 << 10 // bytes of what is signed; cosign's have some 250
)

// Bounds on what a registry says of one image.
const (
	ImageElements  = 1 << 15 // commas of a manifest, and with them memory when it is decoded; real ones have a few hundred
	ImageManifests = 1024    // that it makes us ask for
)

// Bounds on Debian packages.
const (
	DebControl       = 64 << 20 // bytes that control.tar unpacks to; its lists of checksums can be long
	DebFields        = 1 << 20  // bytes of the file control
	DebUnpacked      = 4 << 30  // bytes that data.tar unpacks to until the copyright file is found
	Copyright        = 4 << 20  // bytes of a copyright file; those of boost have 2 MB
	CopyrightStanzas = 1 << 12  // licences of one package
	LicenceTerms     = 256      // words of the first line of a License field
)

// Window bounds the memory of a decompressor, in bytes: "xz -9" needs half, "zstd -22" all of it.
const Window = 128 << 20

// Bounds on a source of manifests, an archive or a folder.
const (
	SourceEntries = 100_000   // files, links and folders; kubeflow/manifests: 4,000
	SourceLinks   = 4096      // symbolic links: each is followed
	SourceNames   = 16 << 20  // bytes of all paths
	SourceBytes   = 1 << 30   // bytes of all files, and of the archive, packed or unpacked
	SourceKept    = 512 << 20 // bytes of what is kept in memory, with names
	SourceFile    = 64 << 20  // bytes of one file
	SourcePath    = 1024      // bytes of a path, or of a link's target
	SourcePadding = 16 << 20  // bytes of zeros at the end of a tar
	SourceSteps   = 256       // links and folders that a link leads through
)

// Bounds on what registries say of how to log in.
const (
	ChallengeBytes = 16 << 10 // of one header line
	Challenges     = 16       // of one answer
	Token          = 64 << 10 // bytes of a token server's answer
)

// Bounds on the files of a k3s release, in bytes.
const (
	K3sSums   = 1 << 20 // checksums; v1.34: 1 kB
	K3sImages = 1 << 20 // list of images; v1.34: 500 bytes
	K3sBinary = 1 << 30 // v1.34: 75 MB
	K3sAirgap = 8 << 30 // its own images; v1.34: 200 MB, unpacked 700 MB
)

// Error is the error for what is out of bounds.
type Error struct {
	What  string // what there is too much of: "nodes", say
	Limit int    // how much of it there may be
	Line  int    // of the document that has it, where that is known; else 0
}

func (e *Error) Error() string {
	at := ""
	if e.Line > 0 {
		at = fmt.Sprintf("line %d: ", e.Line)
	}
	return fmt.Sprintf("%sYAML is too large or too deep: more than %d %s", at, e.Limit, e.What)
}
