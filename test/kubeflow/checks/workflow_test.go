package checks

import (
	"fmt"
	"maps"
	"slices"
	"testing"
)

// userNamespace is that of the stack's own user.
const userNamespace = "kubeflow-user-example-com"

// workflow is what these checks read of Argo's Workflow.
type workflow struct {
	Status struct {
		Phase   string `json:"phase"`
		Message string `json:"message"`
		Nodes   map[string]struct {
			DisplayName string `json:"displayName"`
			Phase       string `json:"phase"`
			Message     string `json:"message"`
			Outputs     struct {
				Parameters []struct{ Name, Value string } `json:"parameters"`
				Artifacts  []struct {
					Name string `json:"name"`
					S3   *struct {
						Key string `json:"key"`
					} `json:"s3"`
				} `json:"artifacts"`
			} `json:"outputs"`
		} `json:"nodes"`
	} `json:"status"`
}

// TestWorkflow: a workflow of two steps, in a user's namespace, hands an artifact from one to
// the other through the stack's object store.
func TestWorkflow(t *testing.T) {
	k := needCluster(t)
	k.storeKey(t)
	remove := []string{"delete", "workflow", "--namespace", userNamespace, "check", "--ignore-not-found"}
	k.run(t, remove...)
	k.apply(t, "workflow.yaml")
	var w workflow
	eventually(t, "the workflow", func() error {
		k.get(t, &w, "workflow", "--namespace", userNamespace, "check")
		switch w.Status.Phase {
		case "Succeeded":
			return nil
		case "Failed", "Error":
			t.Fatalf("the workflow failed: %s: %+v", w.Status.Message, slices.Collect(maps.Values(w.Status.Nodes)))
		}
		return fmt.Errorf("it is %q: %s: %+v", w.Status.Phase, w.Status.Message, w.Status.Nodes)
	})
	var answer, key string
	for _, n := range w.Status.Nodes {
		for _, p := range n.Outputs.Parameters {
			answer = p.Value
		}
		for _, a := range n.Outputs.Artifacts {
			if a.Name == "letter" && a.S3 != nil {
				key = a.S3.Key
			}
		}
	}
	if answer != "from the second step" {
		t.Errorf("the second step says %q", answer)
	}
	if key == "" {
		t.Error("the artifact is not in the object store")
	}
	t.Logf("the artifact's key: %s", key)
	if !t.Failed() {
		k.run(t, remove...)
	}
}

// storeKey puts the object store's key where a user's workflows look for it. In a whole
// Kubeflow its profile controller does, with a key that opens the user's own part alone.
func (k kubectl) storeKey(t *testing.T) {
	t.Helper()
	const name = "mlpipeline-minio-artifact"
	s := k.secret(t, "kubeflow", name)
	text := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  namespace: %s\nstringData:\n  accesskey: %q\n  secretkey: %q\n",
		name, userNamespace, s.Data["accesskey"], s.Data["secretkey"])
	k.install(t, "secret "+name, text)
}
