// Package bundle holds the nouns of an appliance and their formats on disk: the
// Definition a user writes, the Lock that pins it, the Store that keeps every
// byte once, and the Bundle that carries all of them across the gap.
//
// The package never dials out. Matchable errors: [DefinitionError], [ErrStale],
// [ErrIncomplete] and [CorruptError].
//
// # The bundle format
//
// A bundle is one uncompressed POSIX tar that is an OCI image layout
// (https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md).
// Its members are, in this order: oci-layout, index.json, then every blob under
// blobs/sha256/ by ascending digest. Times, owners and modes are fixed, so the
// same lock packed by the same atoll gives the same bytes. Trailing bytes after
// the tar's end are ignored: a bundle can be written raw to a larger partition.
//
// The root index, an OCI image index with artifactType application/vnd.atoll.bundle.v1, has
// one entry per image name, and one per artifact. An entry carries the digest the
// registry gave, so an index stays an index; of an index the wanted platform is
// whole and of the other platforms only manifest and config are present. What is
// not an image (k3s, the stack's manifests, the node's binary, the lock) is an OCI
// artifact, told apart by its artifactType. A reader must ignore artifact types
// and annotations that it does not know.
//
// The bundle's digest is that of the root index: it names everything in the bundle, and
// signing does not change it. A signature is an image in cosign's form over that digest.
//
// index.json is what other tools read: the same entries, then the root index, then its
// signature. It has no digest of its own, so nothing is taken from it but where those two
// are; that it agrees with the root index is checked.
package bundle
