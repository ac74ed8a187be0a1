package firstboot

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/fluxcd/cli-utils/pkg/object"
	"github.com/fluxcd/pkg/ssa"
	ssautil "github.com/fluxcd/pkg/ssa/utils"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// applyAtOnce bounds how many objects are on their way to the API server: enough that it need
	// not wait for this program, few enough that a slow machine answers others in between.
	applyAtOnce = 4
	// definedTimeout bounds how long new kinds of objects and namespaces may take to be there.
	definedTimeout = time.Minute
)

// taken are the objects that the API server has taken, by kind, namespace and name. They are not
// sent again when the others are tried once more.
type taken map[string]bool

// apply sends objects to the API server by server-side apply, one request for each: definitions
// and namespaces first, Jobs last. A Job's template cannot be changed, so one that another
// plan left is made anew; of nothing else is that done, for what has data must not be deleted.
//
// Flux's own ApplyAll reads each object and has it applied without effect first, to leave alone
// what does not differ. The API server does not write such a one either, and here
// nearly all objects are new.
func (c *cluster) apply(ctx context.Context, owner string, objs []*unstructured.Unstructured, taken taken) error {
	var defs, jobs, others []*unstructured.Unstructured
	for _, o := range objs {
		switch {
		case taken[ssautil.FmtUnstructured(o)]:
		case ssautil.IsClusterDefinition(o), ssautil.IsClassDefinition(o):
			defs = append(defs, o)
		case o.GroupVersionKind().Group == "batch" && o.GetKind() == "Job":
			jobs = append(jobs, o)
		default:
			others = append(others, o)
		}
	}
	if len(defs) > 0 {
		if err := c.send(ctx, owner, defs, taken); err != nil {
			return err
		}
		set := object.UnstructuredSetToObjMetadataSet(defs)
		if err := c.manager.WaitForSet(set, ssa.WaitOptions{Interval: time.Second, Timeout: definedTimeout}); err != nil {
			return err
		}
	}
	if err := c.send(ctx, owner, others, taken); err != nil {
		return err
	}
	opts := ssa.DefaultApplyOptions()
	opts.Force = true
	_, err := c.manager.ApplyAll(ctx, copies(jobs), opts)
	return err
}

// send applies objects, in the order of their kinds.
func (c *cluster) send(ctx context.Context, owner string, objs []*unstructured.Unstructured, taken taken) error {
	objs = copies(objs)
	sort.Sort(ssa.SortableUnstructureds(objs))
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(applyAtOnce)
	for _, o := range objs {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			name := ssautil.FmtUnstructured(o)
			ssautil.RemoveCABundleFromCRD(o)
			if err := c.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.ForceOwnership, client.FieldOwner(owner)); err != nil {
				return fmt.Errorf("applying %s: %w", name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			taken[name] = true
			return nil
		})
	}
	return g.Wait()
}

// copies are what to send: the API server's answer is written into it.
func copies(objs []*unstructured.Unstructured) []*unstructured.Unstructured {
	out := make([]*unstructured.Unstructured, len(objs))
	for i, o := range objs {
		out[i] = o.DeepCopy()
	}
	return out
}
