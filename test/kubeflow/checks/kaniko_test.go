package checks

import (
	"fmt"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// TestKaniko: in a user's namespace the published Job builds an image from a Dockerfile in a
// notebook's volume, on a base image of the appliance, and what it pushed runs.
func TestKaniko(t *testing.T) {
	k := needCluster(t)
	const image = registry + "/" + userNamespace + "/check:1"
	pod := corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{
		Name: "built", Namespace: userNamespace, Labels: map[string]string{"sidecar.istio.io/inject": "false"},
	}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "probe", Image: image}}}}
	k.run(t, "delete", "pod", "--namespace", userNamespace, pod.Name, "--ignore-not-found")

	job := k.kaniko(t)
	claim := job.Spec.Template.Spec.Volumes[0].PersistentVolumeClaim.ClaimName
	k.workspace(t, claim, "FROM ghcr.io/atoll-lab/probe:1.0\nRUN [\"/probe\", \"hello\"]\nCOPY Dockerfile /built/\nENTRYPOINT [\"/probe\", \"echo\"]\n")
	logs, ok := k.jobEnds(t, k.createJob(t, job))
	if !ok {
		t.Fatalf("the build failed: %s", logs)
	}
	if !strings.Contains(logs, "hello from the lab") {
		t.Errorf("what RUN printed is not in the log: %s", logs)
	}
	k.create(t, pod)
	k.run(t, "wait", "--namespace", userNamespace, "--for=condition=Ready", "pod/"+pod.Name, "--timeout", patience.String())
	if a, err := k.ask(t, userNamespace, pod.Name, "http://127.0.0.1:8080/here"); err != nil || !strings.Contains(a.Body, "/here") {
		t.Errorf("the image that was built answers %+v, %v", a, err)
	}
	k.run(t, "delete", "pod", "--namespace", userNamespace, pod.Name)
	k.gone(t, "persistentvolumeclaim", claim)
}

// TestKanikoUnknownBase: a base image that is not in the appliance fails the build, and the log
// says what to do. Its Dockerfile lies in a ConfigMap, which a Job may name as well.
func TestKanikoUnknownBase(t *testing.T) {
	k := needCluster(t)
	const base = "docker.io/library/nobody-has-this:1"
	context := configMap("check-kaniko", map[string]string{"Dockerfile": "FROM " + base + "\n"})
	k.run(t, "delete", "configmap", "--namespace", userNamespace, context.Name, "--ignore-not-found")
	k.create(t, context)
	job := k.kaniko(t)
	job.Spec.Template.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: context.Name},
		Items:                []corev1.KeyToPath{{Key: "Dockerfile", Path: folder + "/Dockerfile"}},
	}}
	logs, ok := k.jobEnds(t, k.createJob(t, job))
	if ok || !strings.Contains(logs, "appliance.yaml") || !strings.Contains(logs, "images: ["+base+"]") {
		t.Errorf("the build succeeded: %v; its log has no line for appliance.yaml: %s", ok, logs)
	}
	if err := askedOnce(logs); err != nil {
		t.Errorf("%v: %s", err, logs)
	}
}

// askedOnce returns an error unless Kaniko's log tells of one request for a base image, to the
// node's registry (RetrieveRemoteImage in pkg/image/remote of Kaniko 1.24), and of no other try.
func askedOnce(logs string) error {
	for text, want := range map[string]int{
		" from mapped registry " + registry: 1,
		" from mapped registry ":            1,
		" from registry ":                   0, // where no map sends it: the internet
		"Retrying operation":                0,
	} {
		if n := strings.Count(logs, text); n != want {
			return fmt.Errorf("its log has %q %d times, want %d", text, n, want)
		}
	}
	return nil
}

func TestAskedOnce(t *testing.T) {
	const once = `INFO[0000] Retrieving image manifest docker.io/library/nobody-has-this:1
INFO[0000] Retrieving image docker.io/library/nobody-has-this:1 from mapped registry registry.atoll.svc.cluster.local
WARN[0001] Failed to retrieve image docker.io/library/nobody-has-this:1 from remapped registry registry.atoll.svc.cluster.local: unable to complete operation after 0 attempts, last error: not found. Will try with the next registry, or fallback to the original registry.
error building image: image not found on any configured mapped registries for docker.io/library/nobody-has-this:1
`
	if err := askedOnce(once); err != nil {
		t.Error(err)
	}
	for _, logs := range []string{
		"", once + once,
		once + "WARN[0001] Retrying operation after 1s due to not found\n",
		once + "INFO[0001] Retrieving image index.docker.io/library/nobody-has-this:1 from registry index.docker.io\n",
		strings.ReplaceAll(once, registry, "index.docker.io"),
	} {
		if askedOnce(logs) == nil {
			t.Errorf("taken for one request: %s", logs)
		}
	}
}

// folder is that of the Dockerfile, in the volume.
const folder = "folder"

// kaniko returns the Job of the published template as a user fills it in.
func (k kubectl) kaniko(t *testing.T) *batchv1.Job {
	t.Helper()
	var m corev1.ConfigMap
	k.get(t, &m, "configmap", "--namespace", "kubeflow", "kaniko")
	template := strings.NewReplacer("NAME:TAG", "check:1", "NOTEBOOK", "check", "FOLDER", folder).Replace(m.Data["job.yaml"])
	var job batchv1.Job
	if err := yaml.UnmarshalStrict([]byte(template), &job); err != nil {
		t.Fatalf("the published template: %v", err)
	}
	job.Namespace = userNamespace
	return &job
}

// workspace makes a volume as a notebook has one, and writes the Dockerfile to its folder, as
// the user that a notebook's programs run as.
func (k kubectl) workspace(t *testing.T, claim, dockerfile string) {
	t.Helper()
	const name = "check-workspace-writer"
	user := int64(1000)
	k.gone(t, "pod", name)
	meta := metav1.ObjectMeta{Namespace: userNamespace, Name: claim}
	volume, err := yaml.Marshal(corev1.PersistentVolumeClaim{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"}, ObjectMeta: meta,
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10Mi")}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	k.replace(t, string(volume), "persistentvolumeclaim", claim)
	meta.Name, meta.Labels = name, map[string]string{"sidecar.istio.io/inject": "false"}
	pod := corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: meta, Spec: corev1.PodSpec{
		RestartPolicy:   corev1.RestartPolicyNever,
		SecurityContext: &corev1.PodSecurityContext{RunAsUser: &user, FSGroup: &user},
		Volumes: []corev1.Volume{{Name: "workspace", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}}},
		Containers: []corev1.Container{{
			Name: "writer", Image: "docker.io/rancher/mirrored-library-busybox:1.37.0", // of k3s itself
			Command:      []string{"sh", "-c", `mkdir "$0" && printf %s "$DOCKERFILE" >"$0/Dockerfile"`, "/workspace/" + folder},
			Env:          []corev1.EnvVar{{Name: "DOCKERFILE", Value: dockerfile}},
			VolumeMounts: []corev1.VolumeMount{{Name: "workspace", MountPath: "/workspace"}},
		}},
	}}
	k.create(t, pod)
	k.run(t, "wait", "--namespace", userNamespace, "--for=jsonpath={.status.phase}=Succeeded", "pod/"+name, "--timeout", patience.String())
	k.gone(t, "pod", name)
}

// createJob installs a Job and returns what it became.
func (k kubectl) createJob(t *testing.T, job *batchv1.Job) *batchv1.Job {
	t.Helper()
	var created batchv1.Job
	if err := yaml.Unmarshal([]byte(k.create(t, job)), &created); err != nil {
		t.Fatal(err)
	}
	return &created
}

// create installs an object, which must not be there, and returns what it became.
func (k kubectl) create(t *testing.T, obj any) string {
	t.Helper()
	text, err := yaml.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	out, err := k.try(t.Context(), string(text), "create", "-f", "-", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// jobEnds waits for a Job, and returns its log and whether it succeeded.
func (k kubectl) jobEnds(t *testing.T, job *batchv1.Job) (logs string, ok bool) {
	t.Helper()
	var now batchv1.Job
	eventually(t, "job "+job.Name, func() error {
		now = batchv1.Job{}
		k.get(t, &now, "job", "--namespace", job.Namespace, job.Name)
		if now.Status.Succeeded+now.Status.Failed == 0 {
			return fmt.Errorf("it has not ended: %+v", now.Status)
		}
		return nil
	})
	if now.Status.StartTime != nil && len(now.Status.Conditions) > 0 {
		t.Logf("job %s ended after %s", job.Name, now.Status.Conditions[len(now.Status.Conditions)-1].LastTransitionTime.Sub(now.Status.StartTime.Time))
	}
	logs = k.run(t, "logs", "--namespace", job.Namespace, "job/"+job.Name)
	k.run(t, "delete", "job", "--namespace", job.Namespace, job.Name)
	return logs, now.Status.Succeeded > 0
}
