package checks

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// python is the base image of what Fairing builds.
const python = registry + "/docker.io/library/python:3.11"

// TestFairing: in a user's namespace a notebook's pod builds images with the real Fairing, by
// its append builder and by Kaniko, and Jobs of Fairing run them.
func TestFairing(t *testing.T) {
	k := needCluster(t)
	k.storeKey(t)
	k.notebook(t)
	for _, builder := range []string{"append", "cluster"} {
		t.Run(builder, func(t *testing.T) { k.fairing(t, builder) })
	}
	for _, c := range []struct{ builder, base, script, says string }{
		{"cluster", registry + "/docker.io/library/nobody-has-this:1", "hello.py", "the build failed: "},
		{"append", python, "fails.py", "the job fairing-job-"},
	} {
		t.Run("failing "+c.builder, func(t *testing.T) {
			out, err := k.inNotebook(t, c.builder, c.base, c.script)
			if err == nil || !strings.Contains(err.Error(), "RuntimeError: "+c.says) {
				t.Errorf("%v; it printed %s", err, out)
			}
		})
	}
	k.run(t, "delete", "job", "--namespace", userNamespace, "--selector", "fairing-deployer=job")
	k.run(t, "delete", "job", "--namespace", userNamespace, "--selector", "fairing-builder=kaniko")
	k.gone(t, "configmap", "check-fairing")
	k.gone(t, "pod", "check-fairing")
}

// fairing has the notebook build an image and run it.
func (k kubectl) fairing(t *testing.T, builder string) {
	t.Helper()
	out, err := k.inNotebook(t, builder, python, "hello.py")
	if err != nil {
		t.Fatalf("%v\nit printed %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	job := batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: userNamespace, Name: lines[len(lines)-1]}}
	var j batchv1.Job
	k.get(t, &j, "job", "--namespace", userNamespace, job.Name)
	if image, want := j.Spec.Template.Spec.Containers[0].Image, registry+"/"+userNamespace+"/check-"+builder+":"; !strings.HasPrefix(image, want) {
		t.Errorf("the job runs %s, want %s…", image, want)
	}
	if logs, ok := k.jobEnds(t, &job); !ok || strings.TrimSpace(logs) != "hello from Fairing" {
		t.Errorf("the job succeeded: %v; its log: %s", ok, logs)
	}
}

// inNotebook runs in_cluster.py in the notebook's pod and returns what it printed.
func (k kubectl) inNotebook(t *testing.T, builder, base, script string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return k.try(ctx, "", "exec", "--namespace", userNamespace, "check-fairing", "--container", "notebook", "--",
		"python3", "-W", "ignore", "in_cluster.py", builder, userNamespace, base, script)
}

// notebook starts the pod of fairing.yaml, and skips the test where the appliance does not have its image.
func (k kubectl) notebook(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("../fairing/*.py")
	if err != nil || len(files) == 0 {
		t.Fatal("no files for the notebook: ", err)
	}
	data := map[string]string{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		data[filepath.Base(f)] = string(text)
	}
	const name = "check-fairing"
	k.gone(t, "configmap", name)
	k.create(t, configMap(name, data))
	k.replaceFile(t, "fairing.yaml", "pod", name)
	missing := false
	eventually(t, "the notebook", func() error {
		var p corev1.Pod
		k.get(t, &p, "pod", "--namespace", userNamespace, name)
		for _, c := range p.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil && w.Reason == "ImagePullBackOff" {
				missing = true
				return nil
			}
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return errors.New("it is not ready")
	})
	if missing {
		k.gone(t, "pod", name)
		k.gone(t, "configmap", name)
		t.Skip("the appliance has no image of Fairing")
	}
}

// configMap is one of the user's namespace.
func configMap(name string, data map[string]string) corev1.ConfigMap {
	return corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: userNamespace},
		Data:       data,
	}
}
