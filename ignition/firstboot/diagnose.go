package firstboot

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Bounds on what goes into a status besides the error: it travels as one line.
const (
	maxLogLines = 40
	maxLineLen  = 300 // bytes
	maxObjects  = 5   // that are looked into
	tailLines   = 10  // of a container's log
	maxEvents   = 3   // of an object
)

// A failure is an error with the tail of the log that belongs to it.
type failure struct {
	error
	log []string
}

func (f *failure) Unwrap() error { return f.error }

// diagnose tells why objects are not ready, as far as the cluster knows: the latest
// warnings about them and their pods, and the end of the logs of containers that fail.
// What cannot be read is left out: the error itself is told elsewhere.
func (c *cluster) diagnose(objs []*unstructured.Unstructured) []string {
	// The phase's own time is up when this is asked.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	running := c.running(ctx)
	var lines []string
	looked := 0
	for _, o := range objs {
		if looked == maxObjects || c.checkObject(ctx, o, running) == nil {
			continue
		}
		looked++
		live := &unstructured.Unstructured{}
		live.SetGroupVersionKind(o.GroupVersionKind())
		if err := c.client.Get(ctx, client.ObjectKeyFromObject(o), live); err != nil {
			continue
		}
		lines = append(lines, c.events(ctx, name(o), live.GetNamespace(), live.GetUID())...)
		pods, err := c.pods(ctx, live)
		if err != nil {
			continue
		}
		for _, p := range pods {
			if notReady(p) == "" {
				continue
			}
			lines = append(lines, c.events(ctx, "Pod "+p.Namespace+"/"+p.Name, p.Namespace, p.UID)...)
			lines = append(lines, c.podLog(ctx, p)...)
		}
	}
	return tail(strings.Join(lines, "\n"), maxLogLines)
}

// events gives the latest warnings about an object.
func (c *cluster) events(ctx context.Context, about, namespace string, uid types.UID) []string {
	list, err := c.core.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning,involvedObject.uid=" + string(uid)})
	if err != nil {
		return nil
	}
	events := list.Items
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return a.LastTimestamp.Compare(b.LastTimestamp.Time) })
	var lines []string
	for _, e := range events[max(0, len(events)-maxEvents):] {
		lines = append(lines, fmt.Sprintf("%s: %s: %s", about, e.Reason, strings.TrimSpace(e.Message)))
	}
	return lines
}

// podLog gives the end of the logs of a pod's containers that are not ready; that of
// the run before, if a container waits to be started again.
func (c *cluster) podLog(ctx context.Context, p corev1.Pod) []string {
	var lines []string
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if s.Ready || s.State.Terminated != nil && s.State.Terminated.ExitCode == 0 {
			continue
		}
		data, err := c.core.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{
			Container: s.Name, TailLines: new(int64(tailLines)), Previous: s.State.Waiting != nil && s.RestartCount > 0,
		}).DoRaw(ctx)
		if err != nil {
			continue
		}
		for _, line := range tail(string(data), tailLines) {
			lines = append(lines, fmt.Sprintf("Pod %s/%s container %s: %s", p.Namespace, p.Name, s.Name, line))
		}
	}
	return lines
}

// firstReason is why the first pod that is not ready is so, to be added to a message:
// what its containers say, and the latest warning about it, for a pod that cannot even
// be made says nothing itself.
func (c *cluster) firstReason(ctx context.Context, pods []corev1.Pod) string {
	for _, p := range pods {
		why := notReady(p)
		if why == "" {
			continue
		}
		reason := fmt.Sprintf("; pod %s: %s", p.Name, why)
		if outgrown(p) {
			// The scheduler does not say how much there is, nor what a person can do.
			if node, err := c.core.CoreV1().Nodes().Get(ctx, c.node, metav1.GetOptions{}); err == nil {
				reason += "; " + tooSmall(node.Status.Allocatable)
			}
		}
		if events := c.events(ctx, "event", p.Namespace, p.UID); len(events) > 0 {
			reason += "; " + events[len(events)-1]
		}
		return reason
	}
	return ""
}

// notReady is why a pod is not ready, the most telling reason first; empty if it is.
func notReady(p corev1.Pod) string {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := s.State.Waiting; w != nil && w.Reason != "" {
			return strings.TrimSpace(fmt.Sprintf("container %s (%s) waits: %s %s", s.Name, s.Image, w.Reason, w.Message))
		}
		if t := s.State.Terminated; t != nil && t.ExitCode != 0 {
			return strings.TrimSpace(fmt.Sprintf("container %s (%s) ended with %d: %s %s", s.Name, s.Image, t.ExitCode, t.Reason, t.Message))
		}
	}
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue {
			return ""
		}
		if cond.Type == corev1.PodScheduled && cond.Status != corev1.ConditionTrue {
			return "is not scheduled: " + cond.Message
		}
	}
	return "is not ready"
}

// outgrown says whether a pod waits because the pods before it have asked for all that the
// machine has.
func outgrown(p corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(cond corev1.PodCondition) bool {
		return cond.Type == corev1.PodScheduled && cond.Status == corev1.ConditionFalse &&
			(strings.Contains(cond.Message, "Insufficient cpu") || strings.Contains(cond.Message, "Insufficient memory"))
	})
}

// tooSmall says what the machine has for pods, and what to do when that is too little.
func tooSmall(has corev1.ResourceList) string {
	return fmt.Sprintf("this machine has %s processors and %d MiB of memory for pods, of which the pods before this one leave too little: "+
		"give the machine more, or leave components out (without: in appliance.yaml)", has.Cpu(), has.Memory().Value()>>20)
}

// tail gives the last n lines of a text, each of a bounded length.
func tail(text string, n int) []string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	lines = lines[max(0, len(lines)-n):]
	var out []string
	for _, line := range lines {
		if line == "" {
			continue
		}
		if len(line) > maxLineLen {
			line = line[:maxLineLen]
		}
		out = append(out, strings.ToValidUTF8(line, "?"))
	}
	return out
}
