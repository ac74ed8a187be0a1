package kubeflow

import (
	"strings"
	"testing"

	ssautil "github.com/fluxcd/pkg/ssa/utils"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestReplicas: no autoscaler asks for a second pod. On one node it would add nothing, may
// find no processor, and then the node would not be ready after its next boot, which waits
// for as many pods as there should be.
func TestReplicas(t *testing.T) {
	_, sources := Unpack(t)
	for _, auth := range []string{"authservice", "oauth2-proxy"} {
		found := 0
		for _, p := range Plan(t, sources, auth).Phases {
			objs, err := ssautil.ReadObjects(strings.NewReader(p.Manifest))
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objs {
				if o.GetKind() != "HorizontalPodAutoscaler" {
					continue
				}
				found++
				for _, field := range []string{"minReplicas", "maxReplicas"} {
					n, set, err := unstructured.NestedInt64(o.Object, "spec", field)
					if err != nil || set && n != 1 || field == "maxReplicas" && !set {
						t.Errorf("%s: %s/%s has %s %d, want 1 (%v)", auth, o.GetNamespace(), o.GetName(), field, n, err)
					}
				}
			}
		}
		if found < 5 {
			t.Errorf("%s: %d autoscalers, want all 5 of upstream's", auth, found)
		}
	}
}
