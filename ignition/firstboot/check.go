package firstboot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// check says what of the objects is not as it should be, and why. With again they are of an
// earlier boot: a Job has done its work, and what is gone was removed by someone who
// may do so.
func (c *cluster) check(ctx context.Context, objs []*unstructured.Unstructured, again bool) (bad []*unstructured.Unstructured, err error) {
	running := c.running(ctx)
	var errs []error
	for _, o := range objs {
		if again && o.GetKind() == "Job" {
			continue
		}
		err := c.checkObject(ctx, o, running)
		if again && apierrors.IsNotFound(err) {
			c.opts.Log.Info("removed since it was installed", "object", name(o))
			continue
		}
		if err != nil {
			bad = append(bad, o)
			errs = append(errs, fmt.Errorf("%s %w", name(o), err))
		}
	}
	return bad, errors.Join(errs...)
}

// running returns what asks kubelet for the pods that it runs at this moment, once, when it is first
// called. After a power cut the API server still tells how pods were before it; only kubelet knows.
func (c *cluster) running(ctx context.Context) func() (map[types.UID]bool, error) {
	return sync.OnceValues(func() (map[types.UID]bool, error) {
		data, err := c.core.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/" + c.node + "/proxy/runningpods/").DoRaw(ctx)
		if err != nil {
			return nil, fmt.Errorf("asking kubelet what runs: %w", err)
		}
		var pods corev1.PodList
		if err := json.Unmarshal(data, &pods); err != nil {
			return nil, fmt.Errorf("asking kubelet what runs: %w", err)
		}
		uids := map[types.UID]bool{}
		for _, p := range pods.Items {
			uids[p.UID] = true
		}
		return uids, nil
	})
}

// name is an object as people know it.
func name(o *unstructured.Unstructured) string {
	if ns := o.GetNamespace(); ns != "" {
		return o.GetKind() + " " + ns + "/" + o.GetName()
	}
	return o.GetKind() + " " + o.GetName()
}

// checkObject asks kstatus, and beyond it whether a workload's pods really run and
// whether a webhook can be called.
func (c *cluster) checkObject(ctx context.Context, o *unstructured.Unstructured, running func() (map[types.UID]bool, error)) error {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(o.GroupVersionKind())
	if err := c.client.Get(ctx, client.ObjectKeyFromObject(o), live); err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	res, err := status.Compute(live)
	if err != nil {
		return err
	}
	if o.GetKind() == "Job" && res.Status == status.CurrentStatus && !completed(live) {
		res.Status = status.InProgressStatus // to kstatus a Job is as it should be once it has started
	}
	if res.Status != status.CurrentStatus {
		pods, err := c.pods(ctx, live)
		err = errors.Join(fmt.Errorf("is %s: %s%s", strings.ToLower(res.Status.String()), res.Message, c.firstReason(ctx, pods)), err)
		if o.GetKind() == "Job" && res.Status == status.FailedStatus {
			return finalError{err} // it has tried as often as it may
		}
		return err
	}
	switch o.GetKind() {
	case "Deployment", "StatefulSet", "DaemonSet":
		return c.checkPods(ctx, live, running)
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration":
		return c.checkWebhooks(ctx, live)
	}
	return nil
}

// completed says whether a Job has done its work.
func completed(job *unstructured.Unstructured) bool {
	conditions, _, err := unstructured.NestedSlice(job.Object, "status", "conditions")
	return err == nil && slices.ContainsFunc(conditions, func(v any) bool {
		c, _ := v.(map[string]any)
		return c["type"] == string(batchv1.JobComplete) && c["status"] == string(corev1.ConditionTrue)
	})
}

// finalError is one that no wait makes go away.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// checkPods fails until as many pods run as the workload wants to be ready.
func (c *cluster) checkPods(ctx context.Context, live *unstructured.Unstructured, running func() (map[types.UID]bool, error)) error {
	uids, err := running()
	if err != nil {
		return fmt.Errorf("cannot be judged: %w", err)
	}
	pods, err := c.pods(ctx, live)
	if err != nil {
		return err
	}
	want, _, err := unstructured.NestedInt64(live.Object, "status", "readyReplicas")
	if live.GetKind() == "DaemonSet" {
		want, _, err = unstructured.NestedInt64(live.Object, "status", "numberReady")
	}
	if err != nil {
		return err
	}
	var have int64
	for _, p := range pods {
		if uids[p.UID] && notReady(p) == "" {
			have++
		}
	}
	if have < want {
		return fmt.Errorf("has %d of %d pods running since this boot%s", have, want, c.firstReason(ctx, pods))
	}
	return nil
}

// pods lists the pods of a workload that are not on their way out; none of another kind of object.
func (c *cluster) pods(ctx context.Context, o *unstructured.Unstructured) ([]corev1.Pod, error) {
	field, ok, err := unstructured.NestedMap(o.Object, "spec", "selector")
	if !ok || err != nil || !slices.Contains([]string{"Deployment", "StatefulSet", "DaemonSet", "Job"}, o.GetKind()) {
		return nil, err
	}
	var labels metav1.LabelSelector
	if err := convert(field, &labels); err != nil {
		return nil, err
	}
	selector, err := metav1.LabelSelectorAsSelector(&labels)
	if err != nil {
		return nil, err
	}
	list, err := c.core.CoreV1().Pods(o.GetNamespace()).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil }), nil
}

// checkWebhooks fails until every webhook that is a service has a CA to know it by,
// and something behind the service.
func (c *cluster) checkWebhooks(ctx context.Context, o *unstructured.Unstructured) error {
	var config struct { // what the two kinds have in common
		Webhooks []struct {
			Name         string                          `json:"name"`
			ClientConfig admissionv1.WebhookClientConfig `json:"clientConfig"`
		} `json:"webhooks"`
	}
	if err := convert(o.Object, &config); err != nil {
		return err
	}
	for _, w := range config.Webhooks {
		service := w.ClientConfig.Service
		if service == nil {
			continue
		}
		if len(w.ClientConfig.CABundle) == 0 {
			return fmt.Errorf("has no CA yet for webhook %s", w.Name)
		}
		ok, err := c.hasEndpoints(ctx, service.Namespace, service.Name)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("has nothing ready behind service %s/%s", service.Namespace, service.Name)
		}
	}
	return nil
}

// hasEndpoints says whether a service has a ready endpoint.
func (c *cluster) hasEndpoints(ctx context.Context, namespace, service string) (bool, error) {
	slicesOf, err := c.core.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		return false, err
	}
	for _, s := range slicesOf.Items {
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready { // nil means ready, says the API
				return true, nil
			}
		}
	}
	return false, nil
}

// convert reads a part of an untyped object as a type.
func convert(from, to any) error {
	data, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}
