// Package checks looks at Kubeflow from within: its tests drive a cluster in which the stack is
// installed, by kubectl alone. The cluster may be in a guest that "make kubeflow" booted, or
// any other.
package checks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// kubectlVariable names the environment variable that has the command line of kubectl, split
// at spaces, like "k3s kubectl". Where it is empty there is no cluster to check.
const kubectlVariable = "ATOLL_KUBECTL"

// fullVariable names the environment variable that is not empty where the cluster has the
// whole set of programs: then a check fails for whose component is missing.
const fullVariable = "ATOLL_KUBEFLOW_FULL"

// patience bounds whatever a check waits for, on a machine that is emulated.
const patience = 10 * time.Minute

// kubectl is kubectl's command line, for one cluster.
type kubectl []string

// needCluster returns the cluster to check, and skips the test where there is none.
func needCluster(t *testing.T) kubectl {
	t.Helper()
	command := strings.Fields(os.Getenv(kubectlVariable))
	if len(command) == 0 {
		t.Skipf("no cluster to check: %s is not set", kubectlVariable)
	}
	return command
}

// try runs kubectl with input on its standard input, and returns what it printed.
func (k kubectl) try(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, k[0], append(k[1:len(k):len(k)], args...)...)
	cmd.Stdin = strings.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// run is try for what must not fail.
func (k kubectl) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := k.try(t.Context(), "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// apply installs the objects of a file of checks.
func (k kubectl) apply(t *testing.T, name string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	k.install(t, name, string(text))
}

// install installs objects. Webhooks may not answer yet for a moment after all is ready, and
// an emulated machine takes longer than kubectl waits for to tell what kinds there are.
func (k kubectl) install(t *testing.T, what, text string) {
	t.Helper()
	eventually(t, "installing "+what, func() error {
		_, err := k.try(t.Context(), text, "apply", "--server-side", "--force-conflicts", "-f", "-")
		return err
	})
}

// remove deletes namespaces with all that is in them, before a check and after it.
func (k kubectl) remove(t *testing.T, namespaces ...string) {
	t.Helper()
	args := append([]string{"delete", "namespace", "--ignore-not-found"}, namespaces...)
	k.run(t, args...)
	t.Cleanup(func() {
		if t.Failed() { // leave what tells why
			return
		}
		if _, err := k.try(context.Background(), "", append(args, "--wait=false")...); err != nil {
			t.Error(err)
		}
	})
}

// get reads one object into v.
func (k kubectl) get(t *testing.T, v any, args ...string) {
	t.Helper()
	out := k.run(t, append(append([]string{"get"}, args...), "-o", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		t.Fatalf("kubectl get %s: %v", strings.Join(args, " "), err)
	}
}

// ready waits until all pods of a namespace are ready.
func (k kubectl) ready(t *testing.T, namespace string) {
	t.Helper()
	k.run(t, "wait", "--namespace", namespace, "--for=condition=Ready", "pod", "--all", "--timeout", patience.String())
}

// eventually tries until it works, or fails the test with what the last try said.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(time.Second)
	}
}

// answer is what the lab's probe prints of an HTTP answer.
type answer struct {
	Status int    `json:"status"`
	Body   string `json:"body"`
}

// ask sends a GET request from a pod.
func (k kubectl) ask(t *testing.T, namespace, pod, url string) (answer, error) {
	t.Helper()
	var a answer
	out, err := k.probe(t, namespace, pod, "get", url)
	if err == nil {
		err = json.Unmarshal([]byte(out), &a)
	}
	return a, err
}

// probe runs the lab's probe in a pod.
func (k kubectl) probe(t *testing.T, namespace, pod string, args ...string) (string, error) {
	t.Helper()
	args = append([]string{"exec", "--namespace", namespace, pod, "--container", "probe", "--", "/probe"}, args...)
	return k.try(t.Context(), "", args...)
}

// needKind skips the test where a kind of objects is not known, as its component is not there,
// and fails it in the whole set, which has all components.
func (k kubectl) needKind(t *testing.T, definition string) {
	t.Helper()
	if k.run(t, "get", "customresourcedefinition", definition, "--ignore-not-found", "--output", "name") != "" {
		return
	}
	if os.Getenv(fullVariable) != "" {
		t.Fatalf("the cluster has no %s, and was to have the whole set", definition)
	}
	t.Skipf("the cluster has no %s", definition)
}

// replace installs an object in the user's namespace, in the place of one that an earlier run left.
func (k kubectl) replace(t *testing.T, text, resource, name string) {
	t.Helper()
	k.gone(t, resource, name)
	k.install(t, resource+" "+name, text)
}

// replaceFile is replace with a file's object.
func (k kubectl) replaceFile(t *testing.T, file, resource, name string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	k.replace(t, string(text), resource, name)
}

// start runs a probe that serves, in a pod of the user's namespace, and waits until it is ready.
// Its image is the lab's, or one that was made of it; without a policy it is pulled as Kubernetes sees fit.
func (k kubectl) start(t *testing.T, name, image string, policy corev1.PullPolicy) {
	t.Helper()
	pod, err := yaml.Marshal(corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: userNamespace},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "probe", Image: image, ImagePullPolicy: policy, Command: []string{"/probe", "serve"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	k.replace(t, string(pod), "pod", name)
	k.run(t, "wait", "--namespace", userNamespace, "--for=condition=Ready", "pod/"+name, "--timeout", patience.String())
}

// gone deletes an object of the user's namespace and waits until it and its own are gone, unless the test
// has failed: then it stays, as it tells why.
func (k kubectl) gone(t *testing.T, resource, name string) {
	t.Helper()
	if t.Failed() {
		return
	}
	k.run(t, "delete", resource, "--namespace", userNamespace, name, "--ignore-not-found", "--cascade", "foreground", "--timeout", patience.String())
}

// condition waits until an object of the user's namespace has a condition, and fails the
// test at once if it has the other.
func (k kubectl) condition(t *testing.T, resource, name, want, never string) {
	t.Helper()
	eventually(t, resource+" "+name, func() error {
		var o struct {
			Status struct {
				Conditions []struct{ Type, Status, Reason, Message string } `json:"conditions"`
			} `json:"status"`
		}
		k.get(t, &o, resource, "--namespace", userNamespace, name)
		for _, c := range o.Status.Conditions {
			switch {
			case c.Status != "True":
			case c.Type == want:
				return nil
			case c.Type == never:
				t.Fatalf("%s %s: %s: %s: %s", resource, name, c.Type, c.Reason, c.Message)
			}
		}
		return fmt.Errorf("it is not %s: %+v", want, o.Status.Conditions)
	})
}
