package kubeflow

import (
	"strings"
	"testing"

	ssautil "github.com/fluxcd/pkg/ssa/utils"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestReplicas: nothing asks for a second pod of what one is enough of, and no autoscaler may.
// On one node another pod would add nothing, may find no processor, and then the node would not
// be ready after its next boot, which waits for as many pods as there should be.
func TestReplicas(t *testing.T) {
	_, sources := Unpack(t)
	for _, auth := range []string{"authservice", "oauth2-proxy"} {
		for _, p := range Plan(t, sources, auth).Phases {
			objs, err := ssautil.ReadObjects(strings.NewReader(p.Manifest))
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objs {
				name := o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
				if o.GetKind() == "HorizontalPodAutoscaler" {
					t.Errorf("%s: %s is there", auth, name)
				}
				n, set, err := unstructured.NestedInt64(o.Object, "spec", "replicas")
				if err != nil || set && n > 1 {
					t.Errorf("%s: %s has %d replicas (%v)", auth, name, n, err)
				}
			}
		}
	}
}
