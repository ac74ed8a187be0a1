package kubeflow

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	ssautil "github.com/fluxcd/pkg/ssa/utils"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestReplicas: nothing asks for a second pod of what one is enough of, no autoscaler may, and
// no program that can be told not to elects a leader.
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
				if why := elects(o); why != "" {
					t.Errorf("%s: %s elects a leader among one: %s", auth, name, why)
				}
			}
		}
	}
}

// electors are programs that elect a leader unless they are told not to, by their container's
// name, with the argument or the variable that does.
var electors = map[string]string{
	"cert-manager-controller": "--leader-elect=false",
	"cert-manager-cainjector": "--leader-elect=false",
	"workflow-controller":     "LEADER_ELECTION_DISABLE=true",
}

// electorFlag is an argument by which a program is told to elect a leader, or not.
var electorFlag = regexp.MustCompile(`^--?(enable-)?(leader-elect|leader-election)(=.*)?$`)

// elects tells by what a program elects a leader; it is empty if it does not.
func elects(o *unstructured.Unstructured) string {
	switch o.GetKind() {
	case "ConfigMap":
		if data, _ := json.Marshal(o.Object["data"]); strings.Contains(string(data), "leaderElect: true") {
			return string(data)
		}
	case "Deployment":
		var d appsv1.Deployment
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d); err != nil {
			return err.Error()
		}
		for _, c := range d.Spec.Template.Spec.Containers {
			said := slices.Concat(c.Command, c.Args)
			for _, e := range c.Env {
				said = append(said, e.Name+"="+e.Value)
			}
			last := ""
			for _, a := range said {
				if electorFlag.MatchString(a) {
					last = a
				}
			}
			if last != "" && !strings.HasSuffix(last, "=false") {
				return last
			}
			if want := electors[c.Name]; want != "" && !slices.Contains(said, want) {
				return fmt.Sprintf("no %s in %q", want, said)
			}
		}
	}
	return ""
}
