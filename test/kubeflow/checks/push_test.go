package checks

import (
	"fmt"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// pushedImage is what TestPush leaves in the registry for TestPushed.
const pushedImage = registry + "/" + userNamespace + "/pushed:1"

// registry is the one of the node that users push to.
const registry = "registry.atoll.svc.cluster.local"

// TestPush: an ordinary pod of a user's namespace, with a sidecar as a notebook has it, pushes
// below its namespace's name, and below no other.
func TestPush(t *testing.T) {
	k := needCluster(t)
	const name = "check-push"
	k.start(t, name, "ghcr.io/atoll-lab/probe:1.0", "")
	var pod corev1.Pod
	k.get(t, &pod, "pod", "--namespace", userNamespace, name)
	if !sidecarReady(&pod) {
		t.Errorf("pod %s has no sidecar that is ready", name)
	}
	const own = registry + "/ghcr.io/atoll-lab/probe:1.0"
	refused := own + "," + registry + "/kubeflow/pushed:1," + registry + "/" + userNamespace + "-2/pushed:1"
	out, err := k.probe(t, userNamespace, name, "push", "-refused", refused, "-readable", pushedImage+","+own, pushedImage)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	k.gone(t, "pod", name)
}

// TestPushed: what TestPush has pushed runs by its name, in a pod that asks the registry for
// it. So it does after a reboot, without another push.
func TestPushed(t *testing.T) {
	k := needCluster(t)
	const name = "check-pushed"
	k.start(t, name, pushedImage, corev1.PullAlways)
	eventually(t, "the image that was pushed", func() error {
		a, err := k.ask(t, userNamespace, name, "http://127.0.0.1:8080/readyz")
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("it answers %+v", a)
		}
		return err
	})
	k.gone(t, "pod", name)
}
