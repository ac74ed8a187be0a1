package firstboot

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/fluxcd/pkg/ssa"
	ssautil "github.com/fluxcd/pkg/ssa/utils"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// TestApplyOnce: one request for each object, and none for those that the API server has taken
// when one that it refused is tried again.
func TestApplyOnce(t *testing.T) {
	objs, err := ssautil.ReadObjects(strings.NewReader(`
apiVersion: v1
kind: ConfigMap
metadata: {name: refused, namespace: lab}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: early, namespace: lab}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: late, namespace: lab}
`))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	sent := map[string]int{}
	refuse := errors.New("the webhook does not answer")
	cl := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
		Apply: func(_ context.Context, _ client.WithWatch, config runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			o := config.(metav1.Object)
			mu.Lock()
			defer mu.Unlock()
			sent[o.GetName()]++
			options := (&client.ApplyOptions{}).ApplyOptions(opts)
			if options.FieldManager != "owner" || options.Force == nil || !*options.Force || len(options.DryRun) > 0 {
				t.Errorf("%s is sent with %+v", o.GetName(), options)
			}
			o.SetResourceVersion("1") // an answer, which must not be sent again
			if o.GetName() == "refused" {
				return refuse
			}
			return nil
		},
	})
	c := &cluster{client: cl, manager: ssa.NewResourceManager(cl, nil, ssa.Owner{Field: "owner"})}
	taken := taken{}
	for range 20 {
		// Whatever was not on its way yet when one is refused is sent the next time.
		if err := c.apply(t.Context(), "owner", objs, taken); !errors.Is(err, refuse) || !strings.Contains(err.Error(), "ConfigMap/lab/refused") {
			t.Fatalf("%v", err)
		}
	}
	refuse = nil
	if err := c.apply(t.Context(), "owner", objs, taken); err != nil {
		t.Fatal(err)
	}
	if want := map[string]int{"refused": 21, "early": 1, "late": 1}; !maps.Equal(sent, want) {
		t.Errorf("sent %v, want %v", sent, want)
	}
	for _, o := range objs {
		if o.GetResourceVersion() != "" {
			t.Errorf("%s holds an answer of the API server", o.GetName())
		}
	}
}
