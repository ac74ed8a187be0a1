package kubeflow

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"testing"

	ssautil "github.com/fluxcd/pkg/ssa/utils"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestWebhooksPastSidecars: the API server is not in the mesh, and the mesh refuses whom no policy
// allows (global-deny-all). So a webhook whose pod has a sidecar needs a policy that allows
// it, or its port must not lead through the sidecar: without either, the API server gets
// EOF and nobody can make what the webhook guards.
func TestWebhooksPastSidecars(t *testing.T) {
	_, sources := Unpack(t)
	for _, auth := range []string{"authservice", "oauth2-proxy"} {
		m := mesh{injected: map[string]bool{}}
		for _, p := range Plan(t, sources, auth).Phases {
			objs, err := ssautil.ReadObjects(strings.NewReader(p.Manifest))
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objs {
				m.add(t, o)
			}
		}
		found := 0
		for _, w := range m.webhooks {
			service := w.ClientConfig.Service
			if service == nil {
				continue
			}
			pods, port := m.behind(t, service)
			if m.sidecar(pods) {
				found++
				if !m.passes(pods, port) {
					t.Errorf("%s: the sidecar of %s/%s refuses what the API server asks webhook %s: port %s", auth, pods.Namespace, pods.Name, w.Name, port)
				}
			}
		}
		if found < 5 {
			t.Errorf("%s: %d webhooks with a sidecar, want those of Trainer, JobSet, Knative and KServe", auth, found)
		}
	}
}

// mesh is what decides whether a sidecar lets a request through.
type mesh struct {
	webhooks  []admissionv1.ValidatingWebhook // of both kinds
	services  []corev1.Service
	workloads []appsv1.Deployment // StatefulSets too
	policies  []*unstructured.Unstructured
	injected  map[string]bool // by namespace
}

func (m *mesh) add(t *testing.T, o *unstructured.Unstructured) {
	t.Helper()
	as := func(into any) {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into); err != nil {
			t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
	switch o.GetKind() {
	case "Namespace":
		m.injected[o.GetName()] = o.GetLabels()["istio-injection"] == "enabled"
	case "Service":
		var s corev1.Service
		as(&s)
		m.services = append(m.services, s)
	case "Deployment", "StatefulSet":
		var d appsv1.Deployment
		as(&d)
		m.workloads = append(m.workloads, d)
	case "AuthorizationPolicy":
		m.policies = append(m.policies, o)
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration":
		var c admissionv1.ValidatingWebhookConfiguration
		as(&c)
		m.webhooks = append(m.webhooks, c.Webhooks...)
	}
}

// behind returns the workload that answers a webhook, and its port there.
func (m *mesh) behind(t *testing.T, ref *admissionv1.ServiceReference) (appsv1.Deployment, string) {
	t.Helper()
	for _, s := range m.services {
		if s.Namespace != ref.Namespace || s.Name != ref.Name {
			continue
		}
		for _, d := range m.workloads {
			if d.Namespace == s.Namespace && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(d.Spec.Template.Labels)) {
				return d, targetPort(s, d, ref.Port)
			}
		}
	}
	t.Fatalf("nothing is behind service %s/%s", ref.Namespace, ref.Name)
	return appsv1.Deployment{}, ""
}

// targetPort is the container's port that a service's leads to.
func targetPort(s corev1.Service, d appsv1.Deployment, want *int32) string {
	for _, p := range s.Spec.Ports {
		if want != nil && p.Port != *want || want == nil && p.Port != 443 {
			continue
		}
		if p.TargetPort.Type == intstr.Int {
			return strconv.Itoa(cmp.Or(p.TargetPort.IntValue(), int(p.Port)))
		}
		for _, c := range d.Spec.Template.Spec.Containers {
			for _, cp := range c.Ports {
				if cp.Name == p.TargetPort.StrVal {
					return strconv.Itoa(int(cp.ContainerPort))
				}
			}
		}
	}
	return ""
}

// sidecar says whether a workload's pods get one: a label of theirs decides, then the
// annotation, then the namespace's label
// (https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/).
func (m *mesh) sidecar(d appsv1.Deployment) bool {
	const inject = "sidecar.istio.io/inject"
	for _, values := range []map[string]string{d.Spec.Template.Labels, d.Spec.Template.Annotations} {
		if v, ok := values[inject]; ok {
			return v == "true"
		}
	}
	return m.injected[d.Namespace]
}

// passes says whether requests to a port get past the sidecar.
func (m *mesh) passes(d appsv1.Deployment, port string) bool {
	excluded := strings.Split(d.Spec.Template.Annotations["traffic.sidecar.istio.io/excludeInboundPorts"], ",")
	if slices.Contains(excluded, port) {
		return true
	}
	return slices.ContainsFunc(m.policies, func(o *unstructured.Unstructured) bool {
		action, _, _ := unstructured.NestedString(o.Object, "spec", "action")
		selector, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
		return o.GetNamespace() == d.Namespace && cmp.Or(action, "ALLOW") == "ALLOW" && len(selector) > 0 &&
			labels.SelectorFromSet(selector).Matches(labels.Set(d.Spec.Template.Labels))
	})
}
