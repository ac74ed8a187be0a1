package firstboot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"atoll/bundle"
)

const (
	definitions = `
apiVersion: v1
kind: Namespace
metadata: {name: lab}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.x.dev}
spec:
  group: x.dev
  scope: Namespaced
  names: {kind: Thing, plural: things}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
apiVersion: x.dev/v1
kind: Thing
metadata: {name: t, namespace: lab}
`
	app = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: lab}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec: {nodeName: played, containers: [{name: c, image: lab.test/app:1}]}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: lab}
spec: {selector: {app: app}, ports: [{port: 443}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: app}
webhooks:
- name: a.x.dev
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {service: {name: app, namespace: lab}}
  rules: [{apiGroups: [none.x.dev], apiVersions: [v1], operations: [CREATE], resources: [nones]}]
`
	job = `
apiVersion: batch/v1
kind: Job
metadata: {name: job, namespace: lab}
spec:
  template: {spec: {nodeName: played, restartPolicy: Never, containers: [{name: c, image: "lab.test/job:%d"}]}}
`
)

func labPlan(version int, timeout time.Duration) *bundle.Plan {
	return &bundle.Plan{Stack: "lab", Phases: []bundle.Phase{
		{Name: "definitions", Manifest: definitions, Timeout: timeout},
		{Name: "app", Manifest: app + "---" + fmt.Sprintf(job, version), Timeout: timeout},
	}}
}

// TestInstall installs into a real control plane: a first time, with pods that take
// their time; again, after the pods ended with the power; another plan; and one whose
// pods fail.
func TestInstall(t *testing.T) {
	if !isolated(t) {
		return
	}
	cp := startControlPlane(t)
	o := testOptions(t)
	o.installed = filepath.Join(t.TempDir(), "atoll", "installed.json")
	p := cp.playKubelet(t)

	install := func(plan *bundle.Plan) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		return Install(ctx, pack(t, release, plan), cp.kubeconfig, o)
	}
	state := func() bundle.Status {
		s, err := ReadStatus(o.Status)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}

	// Power is cut in the middle: some of it is there when the next boot goes on.
	cut, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(5*time.Second, cancel).Stop()
	p.set("hold")
	if err := Install(cut, pack(t, release, labPlan(1, time.Minute)), cp.kubeconfig, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("cut short: %v", err)
	}
	if s := state(); s.State != bundle.StateFailed {
		t.Errorf("after the cut: %+v", s)
	}
	p.set("ready")
	if err := install(labPlan(1, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if s := state(); s.State != bundle.StateReady || s.Phases[len(s.Phases)-1].State != bundle.StateReady {
		t.Errorf("after install: %+v", s)
	}
	if _, err := os.Stat(o.installed); err != nil {
		t.Error(err)
	}
	first := cp.job(t)

	// Second boot: nothing is applied, not even what someone removed; but pods that
	// ran before the power went do not count, and it waits for them.
	things := cp.core.Discovery().RESTClient()
	if err := things.Delete().AbsPath("/apis/x.dev/v1/namespaces/lab/things/t").Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	p.set("stopped")
	time.AfterFunc(4*time.Second, func() { p.set("ready") })
	started := time.Now()
	if err := install(labPlan(1, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if time.Since(started) < 4*time.Second {
		t.Error("was ready before its pods were")
	}
	if err := things.Get().AbsPath("/apis/x.dev/v1/namespaces/lab/things/t").Do(t.Context()).Error(); !apierrors.IsNotFound(err) {
		t.Errorf("what was removed is there again: %v", err)
	}
	if cp.job(t).UID != first.UID {
		t.Error("the Job ran again")
	}

	// Another plan changes what cannot be changed in a Job.
	if err := install(labPlan(2, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if j := cp.job(t); j.UID == first.UID || j.Spec.Template.Spec.Containers[0].Image != "lab.test/job:2" {
		t.Errorf("the Job was not made anew: %s", j.Spec.Template.Spec.Containers[0].Image)
	}

	// Pods that fail, and a record that belongs to another cluster.
	if err := os.WriteFile(o.installed, []byte(`{"plan":"x","cluster":"y"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	p.set("failing")
	err := install(labPlan(2, 8*time.Second))
	for _, part := range []string{"phase app", "Deployment lab/app", "lab.test/app:1", "ImagePullBackOff", "time is up"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want an error with %q", err, part)
		}
	}
	s := state()
	if s.State != bundle.StateFailed || !strings.Contains(s.Error, "ImagePullBackOff") {
		t.Errorf("status: %+v", s)
	}
	log := strings.Join(s.Log, "\n")
	for _, part := range []string{"Failed: no such image in the bundle", "last words"} {
		if !strings.Contains(log, part) {
			t.Errorf("log has no %q:\n%s", part, log)
		}
	}
}

// TestInstallWaitsForJobs: a Job has to end, and one that ends badly is no reason to wait.
func TestInstallWaitsForJobs(t *testing.T) {
	if !isolated(t) {
		return
	}
	cp := startControlPlane(t)
	o := testOptions(t)
	o.installed = filepath.Join(t.TempDir(), "installed.json")
	p := cp.playKubelet(t)
	plan := func(version int) *bundle.Plan {
		text := strings.Replace(fmt.Sprintf(job, version), "spec:\n", "spec:\n  backoffLimit: 0\n", 1)
		return &bundle.Plan{Stack: "lab", Phases: []bundle.Phase{
			{Name: "job", Manifest: "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n---" + text, Timeout: time.Minute},
		}}
	}
	p.set("working")
	var ended atomic.Bool
	time.AfterFunc(8*time.Second, func() { ended.Store(true); p.set("ready") })
	if err := Install(t.Context(), pack(t, release, plan(1)), cp.kubeconfig, o); err != nil || !ended.Load() {
		t.Errorf("got %v while the Job was at work", err)
	}
	p.set("broken")
	err := Install(t.Context(), pack(t, release, plan(2)), cp.kubeconfig, o)
	if err == nil || !strings.Contains(err.Error(), "Job lab/job is failed") || strings.Contains(err.Error(), "time is up") {
		t.Errorf("got %v, want an error as soon as the Job has failed", err)
	}
}

func (cp *controlPlane) job(t *testing.T) *batchv1.Job {
	t.Helper()
	j, err := cp.core.BatchV1().Jobs("lab").Get(t.Context(), "job", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestInstallNoCluster gives up in time, and says what it waited for.
func TestInstallNoCluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	o := testOptions(t)
	err := Install(ctx, pack(t, release, labPlan(1, time.Minute)), filepath.Join(t.TempDir(), "none.yaml"), o)
	if err == nil || !strings.Contains(err.Error(), "waiting for k3s") || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("got %v", err)
	}
	if s, err := ReadStatus(o.Status); err != nil || s.State != bundle.StateFailed || s.Phases[0].Name != phaseK3s {
		t.Errorf("status: %+v, %v", s, err)
	}
}

// What the registry found to be damaged ends the installation: it could wait for ever.
func TestInstallDamaged(t *testing.T) {
	o := testOptions(t)
	b := pack(t, release, nil)
	if err := RegistryPhase(o, errors.New("image quay.io/org/app:1 is corrupt")); err == nil {
		t.Fatal("phase did not fail")
	}
	for range 2 { // again, as systemd does
		err := Install(t.Context(), b, filepath.Join(t.TempDir(), "none"), o)
		if err == nil || !strings.Contains(err.Error(), "quay.io/org/app:1 is corrupt") {
			t.Errorf("install: %v", err)
		}
		s, err := ReadStatus(o.Status)
		if err != nil || s.State != bundle.StateFailed || !strings.Contains(s.Error, "quay.io/org/app:1 is corrupt") {
			t.Errorf("status is %+v, %v", s, err)
		}
	}
	// While it waits.
	o = testOptions(t)
	done := make(chan error, 1)
	go func() { done <- Install(t.Context(), b, filepath.Join(t.TempDir(), "none"), o) }()
	for {
		if s, err := ReadStatus(o.Status); err == nil && len(s.Phases) > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	RegistryPhase(o, errors.New("image quay.io/org/app:1 is corrupt"))
	if err := <-done; err == nil || !strings.Contains(err.Error(), "quay.io/org/app:1 is corrupt") {
		t.Errorf("install: %v", err)
	}
	if s, err := ReadStatus(o.Status); err != nil || s.State != bundle.StateFailed {
		t.Errorf("status is %+v, %v", s, err)
	}
}

func TestTail(t *testing.T) {
	got := tail("a\n\nb\n"+strings.Repeat("é", 400)+"\n", 3)
	if len(got) != 2 || got[0] != "b" || len(got[1]) > maxLineLen {
		t.Errorf("got %q", got)
	}
}

func TestNotReady(t *testing.T) {
	ready := corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	for _, tc := range []struct {
		status corev1.PodStatus
		want   string
	}{
		{ready, ""},
		{corev1.PodStatus{}, "is not ready"},
		{corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "no room"}}}, "is not scheduled: no room"},
		{corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "c", Image: "i", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 2, Reason: "Error"}}}}}, "container c (i) ended with 2: Error"},
	} {
		if got := notReady(corev1.Pod{Status: tc.status}); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestOutgrown(t *testing.T) {
	for message, want := range map[string]bool{
		"0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate":     true,
		"0/1 nodes are available: 1 Insufficient memory.":                              true,
		"0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector": false,
	} {
		p := corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: message}}}}
		if got := outgrown(p); got != want {
			t.Errorf("%s: %v, want %v", message, got, want)
		}
	}
	said := tooSmall(corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("9Gi")})
	if !strings.Contains(said, "2 processors and 9216 MiB") || !strings.Contains(said, "without: in appliance.yaml") {
		t.Error(said)
	}
}
