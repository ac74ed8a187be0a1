// Package registry is the writable registry of a node, for the users of an appliance: pods push
// their images to it and the node's containerd pulls them from there. It speaks the OCI
// distribution API (https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md) over
// plain HTTP, and stores with the library of CNCF Distribution, whose own server can read the folder.
//
// # Names
//
// An image is NAMESPACE/NAME, where NAMESPACE is one of Kubernetes. A name whose first part has
// a dot or a colon, like docker.io/library/python, is an image of the appliance's bundle: it is
// read from the bundle's own registry and nobody can change it. See also [bundle.BundlePrefix].
//
// # Who may do what
//
// Whoever reaches the registry reads everything. To push, mount and delete below its own namespace's name
// a pod needs no password: its address is its login. A service account's token, as
// password of HTTP's basic authentication with any user name or as bearer token, does the
// same for the service account's namespace from anywhere; root's password may do it everywhere. What pods
// on the node's own network do cannot be told from the node, so they have no login, and neither
// has an address that is no pod's.
//
// # Storage
//
// What was answered with success has been synced to disk. All changes but the bytes of an
// upload are made with a shared lock (flock(2)) on the file "lock" in the folder; [Collect]
// takes it exclusively, so it may run in another process at any time, and pushes wait while it
// does. What was pushed, or asked for by somebody who pushes, within a time it leaves alone, so that it takes nothing
// that an unfinished push needs. One process at a time may serve a folder.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
)

// Options say where a registry stores and whom it knows.
type Options struct {
	// Dir is the folder that images are stored in. It is made if need be.
	Dir string
	// Quota is what all images may take together, in bytes. A file counts 16 KiB beside its
	// size.
	Quota int64
	// NamespaceQuota is what the images of one namespace may take, in bytes: each blob that any of
	// them has counts once, whether or not other namespaces have it too. 0 means no bound but
	// Quota.
	NamespaceQuota int64
	// MinFree is the space that pushes leave on the file system, in bytes, whatever Quota
	// says.
	MinFree int64
	// Bundle is the address of the registry that serves the bundle's images, without a path:
	// http://127.0.0.1:5000. Without one there are no such images.
	Bundle string
	// Cluster knows pods and service accounts.
	Cluster Cluster
	// RootPassword may push everywhere. Empty means that nobody may. It is never logged.
	RootPassword string
	// Log is told who pushed and deleted what, and what was refused. nil means nobody.
	Log *slog.Logger
}

// Cluster tells whose an address or a token is. See [NewCluster].
type Cluster interface {
	// Pod returns the running pod that has the address now. The error is [ErrUnknown] if there is
	// none, and [ErrHostNetwork] if the address is the node's.
	Pod(ctx context.Context, addr netip.Addr) (Pod, error)
	// ServiceAccount returns the service account that a token is of, and [ErrUnknown] if
	// it is of none or not valid.
	ServiceAccount(ctx context.Context, token string) (ServiceAccount, error)
}

// Pod names a pod.
type Pod struct{ Namespace, Name string }

// ServiceAccount names a service account.
type ServiceAccount struct{ Namespace, Name string }

var (
	// ErrUnknown means that nobody is known by an address or a token.
	ErrUnknown = errors.New("not known to the cluster")
	// ErrHostNetwork means that an address is the node's, which all pods on its network share.
	ErrHostNetwork = errors.New("the node's own address")
)

// Registry is a registry; it serves HTTP requests.
type Registry struct {
	opts    Options
	log     *slog.Logger
	store   *store
	pushed  http.Handler // Distribution's server of what is stored here
	bundled http.Handler
	// manifests bounds how many manifests are in memory.
	manifests chan struct{}
	// generation is the last collection whose outcome is counted.
	generation atomic.Int64
}

// New opens the registry in a folder. Uploads that nobody finishes within [Age] are deleted
// until ctx ends.
func New(ctx context.Context, opts Options) (*Registry, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	r := &Registry{opts: opts, log: opts.Log, manifests: make(chan struct{}, maxManifests)}
	var err error
	if r.bundled, err = bundleHandler(opts.Bundle, opts.Log); err != nil {
		return nil, err
	}
	l := newLedger(opts.Dir, opts.Quota, opts.NamespaceQuota, opts.MinFree)
	if r.store, err = openStore(opts.Dir, l); err != nil {
		return nil, fmt.Errorf("opening the registry's folder: %w", err)
	}
	lock, err := lockFolder(ctx, opts.Dir, false)
	if err != nil {
		return nil, err
	}
	defer lock.unlock()
	r.generation.Store(lock.generation())
	if err := l.count(); err != nil {
		return nil, fmt.Errorf("counting what the registry has: %w", err)
	}
	r.pushed = newApp(ctx, r.store, opts.Log)
	return r, nil
}
