package checks

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

// TestInferenceService: a server of a user's own becomes ready as a plain Deployment, and
// answers at its Service.
func TestInferenceService(t *testing.T) {
	k := needCluster(t)
	const resource, name = "inferenceservice.serving.kserve.io", "check"
	k.needKind(t, "inferenceservices.serving.kserve.io")
	k.replaceFile(t, "inferenceservice.yaml", resource, name)
	k.condition(t, resource, name, "PredictorReady", "")
	k.condition(t, resource, name, "Ready", "")
	k.asks(t, "http://check-predictor."+userNamespace+".svc.cluster.local/v1/models/check")
	k.gone(t, resource, name)
}

// TestKnative: a Revision becomes ready with Knative's queue-proxy in its pod, which answers.
// The Route waits for ever: what would make it ready, net-istio, cannot be had.
func TestKnative(t *testing.T) {
	k := needCluster(t)
	const resource, name = "service.serving.knative.dev", "check-knative"
	k.needKind(t, "services.serving.knative.dev")
	k.replaceFile(t, "knative.yaml", resource, name)
	k.condition(t, resource, name, "ConfigurationsReady", "")
	var s struct {
		Status struct {
			Revision string `json:"latestReadyRevisionName"`
		} `json:"status"`
	}
	k.get(t, &s, resource, "--namespace", userNamespace, name)
	var d appsv1.Deployment
	k.get(t, &d, "deployment", "--namespace", userNamespace, s.Status.Revision+"-deployment")
	var containers []string
	for _, c := range d.Spec.Template.Spec.Containers {
		containers = append(containers, c.Name)
	}
	if got := strings.Join(containers, " "); got != "probe queue-proxy" || d.Status.ReadyReplicas != 1 {
		t.Errorf("containers %q, %d ready", got, d.Status.ReadyReplicas)
	}
	k.asks(t, fmt.Sprintf("http://%s-private.%s.svc.cluster.local/here", s.Status.Revision, userNamespace))
	k.gone(t, resource, name)
}

// asks sends a request from a pod of the user's namespace, which has a sidecar.
func (k kubectl) asks(t *testing.T, url string) {
	t.Helper()
	const name = "check-asks"
	k.start(t, name, "ghcr.io/atoll-lab/probe:1.0", "")
	eventually(t, url, func() error {
		a, err := k.ask(t, userNamespace, name, url)
		if err == nil && (a.Status != 200 || !json.Valid([]byte(a.Body))) {
			err = fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return err
	})
	k.gone(t, "pod", name)
}
