package kubeflow

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"atoll/bundle"
	"atoll/test/guest"
)

// awaitUnready waits until the first boot is at a phase after the definitions and a pod of the
// stack is not ready, and logs the node's status and the pods that are not.
func awaitUnready(t *testing.T, g *guest.Guest) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if err := guest.WaitFor(ctx, func() error {
		status, err := g.Run(ctx, "sudo atoll node status --json", "")
		if err != nil {
			return err
		}
		phase, err := afterDefinitions([]byte(status))
		if err != nil {
			return err
		}
		pods, err := g.Kubectl(ctx, "", "get", "pods", "--all-namespaces", "--field-selector=metadata.namespace!=kube-system", "--output=json")
		if err != nil {
			return err
		}
		names, err := unready([]byte(pods))
		if err != nil {
			return err
		}
		t.Logf("in phase %s pods %s are not ready; the node's status:\n%s", phase, strings.Join(names, " "), status)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// afterDefinitions returns the phase after the definitions that runs.
func afterDefinitions(status []byte) (string, error) {
	var s bundle.Status
	if err := json.Unmarshal(status, &s); err != nil {
		return "", fmt.Errorf("reading the node's status: %w", err)
	}
	after := false
	for _, p := range s.Phases {
		if after && p.State == bundle.StateRunning {
			return p.Name, nil
		}
		after = after || p.Name == "definitions" && p.State == bundle.StateReady
	}
	return "", fmt.Errorf("no phase after the definitions runs: %+v", s.Phases)
}

// unready returns those pods of a list that are not ready, of which there must be one. A pod
// that has done its work will never be.
func unready(list []byte) (names []string, err error) {
	var pods corev1.PodList
	if err := json.Unmarshal(list, &pods); err != nil {
		return nil, fmt.Errorf("reading pods: %w", err)
	}
	for _, p := range pods.Items {
		ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		if !ready && p.Status.Phase != corev1.PodSucceeded {
			names = append(names, p.Namespace+"/"+p.Name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("each of %d pods is ready", len(pods.Items))
	}
	return names, nil
}

func TestUnready(t *testing.T) {
	for status, want := range map[string]string{
		`{"phases": [{"name": "k3s", "state": "ready"}, {"name": "definitions", "state": "running"}, {"name": "cert-manager", "state": "pending"}]}`: "",
		`{"phases": [{"name": "k3s", "state": "ready"}, {"name": "definitions", "state": "ready"}, {"name": "cert-manager", "state": "running"}]}`:   "cert-manager",
		`{"phases": [{"name": "definitions", "state": "ready"}, {"name": "cert-manager", "state": "ready"}]}`:                                        "",
	} {
		if got, err := afterDefinitions([]byte(status)); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", status, got, err, want)
		}
	}
	const pod = `{"metadata": {"namespace": "n", "name": "NAME"}, "status": {"phase": "PHASE", "conditions": [{"type": "Ready", "status": "READY"}]}}`
	list := func(pods ...string) []byte { return []byte(`{"items": [` + strings.Join(pods, ",") + `]}`) }
	ready := strings.NewReplacer("NAME", "a", "PHASE", "Running", "READY", "True").Replace(pod)
	done := strings.NewReplacer("NAME", "b", "PHASE", "Succeeded", "READY", "False").Replace(pod)
	starts := strings.NewReplacer("NAME", "c", "PHASE", "Pending", "READY", "False").Replace(pod)
	if names, err := unready(list(ready, done)); err == nil {
		t.Errorf("taken for pods that are not ready: %v", names)
	}
	if names, err := unready(list(ready, done, starts)); err != nil || !slices.Equal(names, []string{"n/c"}) {
		t.Errorf("%v, %v", names, err)
	}
}
