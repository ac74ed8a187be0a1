package firstboot

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
)

// NewRegistry serves a bundle's images by the pull part of the OCI distribution API
// (https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md), in
// place. It serves all upstream registries at once: which one a request is for is
// said by the query parameter ns, as containerd sends it to a mirror, or else by the
// start of the path (/v2/docker.io/library/busybox/…). The log is told of whatever is asked
// for and not there.
//
// Every blob is hashed when it is first asked for: nobody gets a whole one that is not what
// its digest says. Such a one is told of in the status, whose phase registry has failed then.
//
// An index is served as it is, though manifests or layers of other platforms than
// the node's may be missing from the bundle. The bundle must stay open.
func NewRegistry(b *bundle.Bundle, o *Options) http.Handler {
	opts := o.withDefaults()
	log := opts.Log
	r := &bundleRegistry{bundle: b, log: log, repositories: map[string]*repository{}, verifier: newVerifier(b, opts)}
	for _, im := range b.Images() {
		if err := r.add(im); err != nil {
			log.Error("image is not whole in the bundle", "image", im.Name, "error", err)
		}
	}
	server := ociserver.New(r, &ociserver.Options{
		DisableReferrersAPI: true, // answers 404, as a registry that does not know it
		WriteError: func(w http.ResponseWriter, req *http.Request, err error) {
			log.Warn("not served", "method", req.Method, "url", req.URL.String(), "error", err)
			ociregistry.WriteError(w, err) // fails if the client is gone
		},
	})
	return gate(server)
}

// plainRange is the only form of Range that ociserver takes and no number overflows in.
var plainRange = regexp.MustCompile(`^bytes=[0-9]{1,18}-[0-9]{0,18}$`)

type namespaceKey struct{}

// gate refuses everything but reading, drops a Range that ociserver would take for an
// error (which a server may do: RFC 9110, 14.2), and hands on the namespace. It must
// not wrap the ResponseWriter: that would end sendfile.
func gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			body, _ := ociregistry.MarshalError(ociregistry.ErrUnsupported)
			w.Header().Set("Allow", "GET, HEAD")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusMethodNotAllowed)
			w.Write(body) // fails if the client is gone
			return
		}
		req = req.WithContext(context.WithValue(req.Context(), namespaceKey{}, req.URL.Query().Get("ns")))
		if !plainRange.MatchString(req.Header.Get("Range")) {
			req.Header = req.Header.Clone()
			req.Header.Del("Range")
		}
		next.ServeHTTP(w, req)
	})
}

// bundleRegistry is the backend of ociserver. What it does not implement, [ociregistry.Funcs] refuses.
type bundleRegistry struct {
	*ociregistry.Funcs
	bundle       *bundle.Bundle
	log          *slog.Logger
	repositories map[string]*repository // by canonical name: docker.io/library/busybox
	verifier     *verifier
}

// repository is what may be asked for under one name.
type repository struct {
	tags    map[string]v1.Hash
	content map[v1.Hash]v1.Descriptor
}

func (r *bundleRegistry) add(im bundle.Image) error {
	host, path, tag, digest, err := bundle.SplitReference(im.RefName)
	if err != nil {
		return err
	}
	repo := r.repositories[host+"/"+path]
	if repo == nil {
		repo = &repository{tags: map[string]v1.Hash{}, content: map[v1.Hash]v1.Descriptor{}}
		r.repositories[host+"/"+path] = repo
	}
	// name:tag@digest is asked for by the digest. Its tag may have moved on since,
	// and be another image of the bundle.
	if digest == "" {
		repo.tags[tag] = im.Digest
	}
	contents, err := r.bundle.Contents(im)
	for _, d := range contents {
		repo.content[d.Digest] = d
		r.verifier.names[d.Digest] = im.Name
	}
	return err
}

// repository finds what a request is for: in the upstream registry that the request
// names, or else in the one at the start of the path.
func (r *bundleRegistry) repository(ctx context.Context, path string) (*repository, error) {
	names := []string{path}
	if ns, _ := ctx.Value(namespaceKey{}).(string); ns != "" {
		names = []string{ns + "/" + path, path}
	}
	for _, name := range names {
		canonical, err := bundle.CanonicalReference(name)
		if err != nil {
			continue
		}
		host, path, _, _, err := bundle.SplitReference(canonical)
		if err != nil {
			continue
		}
		if repo, ok := r.repositories[host+"/"+path]; ok {
			return repo, nil
		}
	}
	return nil, ociregistry.ErrNameUnknown
}

// find gives the descriptor of a blob in a repository, or the error unknown.
func (r *bundleRegistry) find(ctx context.Context, path string, digest ociregistry.Digest, unknown error) (v1.Descriptor, error) {
	repo, err := r.repository(ctx, path)
	if err != nil {
		return v1.Descriptor{}, err
	}
	h, err := v1.NewHash(string(digest))
	if err != nil {
		return v1.Descriptor{}, unknown // a digest by another algorithm
	}
	d, ok := repo.content[h]
	if !ok {
		return v1.Descriptor{}, unknown
	}
	return d, nil
}

func (r *bundleRegistry) ResolveManifest(ctx context.Context, path string, digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	d, err := r.find(ctx, path, digest, ociregistry.ErrManifestUnknown)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	if !d.MediaType.IsIndex() && !d.MediaType.IsImage() {
		return ociregistry.Descriptor{}, ociregistry.ErrManifestUnknown
	}
	return descriptor(d, string(d.MediaType)), nil
}

func (r *bundleRegistry) ResolveTag(ctx context.Context, path, tag string) (ociregistry.Descriptor, error) {
	repo, err := r.repository(ctx, path)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	h, ok := repo.tags[tag]
	if !ok {
		return ociregistry.Descriptor{}, ociregistry.ErrManifestUnknown
	}
	return r.ResolveManifest(ctx, path, ociregistry.Digest(h.String()))
}

func (r *bundleRegistry) ResolveBlob(ctx context.Context, path string, digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	d, err := r.find(ctx, path, digest, ociregistry.ErrBlobUnknown)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	return descriptor(d, "application/octet-stream"), nil
}

func (r *bundleRegistry) GetManifest(ctx context.Context, path string, digest ociregistry.Digest) (ociregistry.BlobReader, error) {
	d, err := r.ResolveManifest(ctx, path, digest)
	if err != nil {
		return nil, err
	}
	return r.open(ctx, d, 0, d.Size)
}

func (r *bundleRegistry) GetTag(ctx context.Context, path, tag string) (ociregistry.BlobReader, error) {
	d, err := r.ResolveTag(ctx, path, tag)
	if err != nil {
		return nil, err
	}
	return r.open(ctx, d, 0, d.Size)
}

func (r *bundleRegistry) GetBlob(ctx context.Context, path string, digest ociregistry.Digest) (ociregistry.BlobReader, error) {
	return r.GetBlobRange(ctx, path, digest, 0, -1)
}

func (r *bundleRegistry) GetBlobRange(ctx context.Context, path string, digest ociregistry.Digest, from, to int64) (ociregistry.BlobReader, error) {
	d, err := r.ResolveBlob(ctx, path, digest)
	if err != nil {
		return nil, err
	}
	if to < 0 || to > d.Size {
		to = d.Size
	}
	if from > to || from == to && from > 0 {
		return nil, ociregistry.ErrRangeInvalid
	}
	return r.open(ctx, d, from, to)
}

func (r *bundleRegistry) Repositories(_ context.Context, after string) iter.Seq2[string, error] {
	return sorted(r.repositories, after)
}

func (r *bundleRegistry) Tags(ctx context.Context, path, after string) iter.Seq2[string, error] {
	repo, err := r.repository(ctx, path)
	if err != nil {
		return func(yield func(string, error) bool) { yield("", err) }
	}
	return sorted(repo.tags, after)
}

// sorted gives a map's keys after one of them, ascending.
func sorted[V any](m map[string]V, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if key > after && !yield(key, nil) {
				return
			}
		}
	}
}

func descriptor(d v1.Descriptor, mediaType string) ociregistry.Descriptor {
	return ociregistry.Descriptor{MediaType: mediaType, Size: d.Size, Digest: ociregistry.Digest(d.Digest.String())}
}

// open reads bytes from, up to but not including to, of a blob. What is small, or is not
// read whole, is verified first.
func (r *bundleRegistry) open(ctx context.Context, d ociregistry.Descriptor, from, to int64) (ociregistry.BlobReader, error) {
	h, err := v1.NewHash(string(d.Digest))
	if err != nil {
		return nil, err
	}
	offset, size, ok := r.bundle.Section(h)
	if !ok {
		return nil, errors.New("blob is not in the bundle")
	}
	if to-from < size || size <= hashChunk {
		if err := r.verifier.verify(ctx, h); err != nil {
			return nil, err
		}
	}
	f, err := r.bundle.Reopen()
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset+from, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &blobReader{ctx: ctx, registry: r, desc: d, hash: h, f: f, left: to - from}, nil
}

// blobReader reads a blob. It has a file of its own so that WriteTo can give that to
// the kernel's sendfile, which works with a file's own offset.
type blobReader struct {
	ctx      context.Context
	registry *bundleRegistry
	desc     ociregistry.Descriptor
	hash     v1.Hash
	f        *os.File
	left     int64
}

func (r *blobReader) Descriptor() ociregistry.Descriptor { return r.desc }

func (r *blobReader) Close() error { return r.f.Close() }

func (r *blobReader) Read(p []byte) (int, error) {
	if err := r.registry.verifier.verify(r.ctx, r.hash); err != nil {
		return 0, err
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.f.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}

// WriteTo is what ociserver's io.Copy calls. That has no use for an error, so a disk
// that cannot be read is told here; the client sees a short body.
func (r *blobReader) WriteTo(w io.Writer) (n int64, err error) {
	if v := r.registry.verifier; v.verified(r.hash) {
		n, err = io.CopyN(w, r.f, r.left)
	} else {
		n, err = v.send(w, r.f, r.hash, r.left) // all of it: see open
	}
	r.left -= n
	if err != nil && r.ctx.Err() == nil {
		r.registry.log.Error("sending blob", "digest", r.desc.Digest, "error", err)
	}
	return n, err
}
