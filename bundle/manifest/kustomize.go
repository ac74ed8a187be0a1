package manifest

import (
	"context"
	"fmt"
	"sync"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/openapi"
)

// schema guards kustomize's OpenAPI schema, which the whole process shares. It is read by
// every rendering and changed only where a kustomization brings one of its own.
// https://github.com/kubernetes-sigs/kustomize/issues/4824
var schema sync.RWMutex

// loadSchema reads the schema that is built in. Left to itself kustomize does so in the
// midst of a rendering, while others read the maps that it fills.
var loadSchema = sync.OnceFunc(func() { openapi.Schema() })

// kustomize builds a kustomization, guarded. Several may run at once, except if the
// kustomization has a schema of its own. It returns when ctx is done, though kustomize
// cannot be stopped and ends later.
func kustomize(ctx context.Context, fsys filesys.FileSystem, dir string, ownSchema bool) (resmap.ResMap, error) {
	type result struct {
		resources resmap.ResMap
		err       error
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	done := make(chan result, 1)
	go func() {
		loadSchema()
		if ownSchema {
			schema.Lock()
			defer schema.Unlock()
			openapi.ResetOpenAPI()
			defer func() {
				openapi.ResetOpenAPI()
				openapi.Schema()
			}()
		} else {
			schema.RLock()
			defer schema.RUnlock()
		}
		var r result
		guarded(func() { r.resources, r.err = run(fsys, dir) })
		done <- r
	}()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case r := <-done:
		return r.resources, r.err
	}
}

// run turns kustomize's panics, which it has for some input, into errors.
func run(fsys filesys.FileSystem, dir string) (resources resmap.ResMap, err error) {
	defer func() {
		if p := recover(); p != nil {
			resources, err = nil, fmt.Errorf("kustomize: %v", p)
		}
	}()
	opts := krusty.MakeDefaultOptions()                // which have no plugins but those built in
	opts.LoadRestrictions = types.LoadRestrictionsNone // fsys has what may be read, and no more
	opts.Reorder = krusty.ReorderOptionLegacy          // sorted by kind, namespace and name
	return krusty.MakeKustomizer(opts).Run(fsys, dir)
}
