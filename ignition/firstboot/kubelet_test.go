package firstboot

import (
	"context"
	"encoding/base64"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// playedKubelet says of all pods in the namespace lab how they are:
//
//	hold     nothing yet
//	ready    they run; those of Jobs have ended well
//	stopped  they ran before the power went: ready to the API server, and not running
//	failing  their image cannot be pulled
//	working  they run, those of Jobs too
//	broken   those of Jobs have ended badly
type playedKubelet struct {
	cp   *controlPlane
	mu   sync.Mutex
	mode string
	told map[types.UID]string
}

// playKubelet starts it; it ends with the test. It plays the webhook as well, which
// writes its CA.
func (cp *controlPlane) playKubelet(t *testing.T) *playedKubelet {
	k := &playedKubelet{cp: cp, mode: "ready", told: map[types.UID]string{}}
	cp.running = k.running
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			k.sync(ctx)
			time.Sleep(200 * time.Millisecond)
		}
	}()
	return k
}

func (k *playedKubelet) set(mode string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mode = mode
}

func (k *playedKubelet) get() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mode
}

func (k *playedKubelet) running() []corev1.Pod {
	if k.get() != "ready" {
		return nil
	}
	list, err := k.cp.core.CoreV1().Pods("lab").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return nil
	}
	return list.Items
}

// sync tells the status of every pod whose status is not told yet.
func (k *playedKubelet) sync(ctx context.Context) {
	mode := k.get()
	pods := k.cp.core.CoreV1().Pods("lab")
	list, err := pods.List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	for _, p := range list.Items {
		if p.DeletionTimestamp != nil {
			pods.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
			continue
		}
		if k.told[p.UID] == mode || mode == "hold" || mode == "stopped" {
			continue
		}
		ofJob := p.Labels["batch.kubernetes.io/job-name"] != ""
		p.Status = podStatus(mode, ofJob, p.Spec.Containers[0].Image)
		if _, err := pods.UpdateStatus(ctx, &p, metav1.UpdateOptions{}); err != nil {
			continue
		}
		k.told[p.UID] = mode
		if mode == "failing" && !ofJob {
			k.cp.core.CoreV1().Events("lab").Create(ctx, &corev1.Event{
				ObjectMeta: metav1.ObjectMeta{GenerateName: "e"}, Type: corev1.EventTypeWarning, Reason: "Failed",
				InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "lab", Name: p.Name, UID: p.UID},
				Message:        "no such image in the bundle", LastTimestamp: metav1.Now(),
			}, metav1.CreateOptions{})
		}
	}
	k.cp.core.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(ctx, "app", types.JSONPatchType,
		[]byte(`[{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "`+base64.StdEncoding.EncodeToString(k.cp.ca)+`"}]`), metav1.PatchOptions{})
}

func podStatus(mode string, ofJob bool, image string) corev1.PodStatus {
	now := metav1.Now()
	s := corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: "10.42.0.9", PodIPs: []corev1.PodIP{{IP: "10.42.0.9"}}, StartTime: &now,
		Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}},
		ContainerStatuses: []corev1.ContainerStatus{{Name: "c", Image: image, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}},
	}
	switch {
	case ofJob && mode == "working":
	case ofJob:
		s.Phase = corev1.PodSucceeded
		if mode == "broken" {
			s.Phase = corev1.PodFailed
		}
		s.Conditions[0].Status = corev1.ConditionFalse
		s.ContainerStatuses[0].Ready = false
		s.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: now}}
	case mode == "failing":
		s.Phase = corev1.PodPending
		s.Conditions[0].Status = corev1.ConditionFalse
		s.ContainerStatuses[0].Ready = false
		s.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "back-off"}}
	}
	return s
}
