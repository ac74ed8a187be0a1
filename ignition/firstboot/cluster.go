package firstboot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/ssa"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fieldManager owns the fields that the node applies.
const fieldManager = "atoll"

// bootIDFile changes at every boot (random(4)); kubelet tells the API server of it.
const bootIDFile = "/proc/sys/kernel/random/boot_id"

// cluster is the node's Kubernetes.
type cluster struct {
	opts    Options
	client  client.Client
	core    kubernetes.Interface
	manager *ssa.ResourceManager
	bootID  string
}

// connect waits until k3s answers and its node is ready.
func connect(ctx context.Context, kubeconfig string, opts Options) (*cluster, error) {
	id, err := os.ReadFile(bootIDFile)
	if err != nil {
		return nil, err
	}
	c := &cluster{opts: opts, bootID: strings.TrimSpace(string(id))}
	err = c.retry(ctx, phaseK3s, func() error {
		if c.client == nil {
			if err := c.dial(kubeconfig); err != nil {
				return err
			}
		}
		return c.nodeReady(ctx)
	})
	return c, err
}

func (c *cluster) dial(kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 50, 100 // one node's own API server; the default is for sharing one
	config.Timeout = 2 * time.Minute
	config.WarningHandler = rest.NoWarnings{}
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	mapper, err := apiutil.NewDynamicRESTMapper(config, httpClient)
	if err != nil {
		return err
	}
	cl, err := client.New(config, client.Options{HTTPClient: httpClient, Mapper: mapper})
	if err != nil {
		return err
	}
	core, err := kubernetes.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return err
	}
	poller := polling.NewStatusPoller(cl, mapper, polling.Options{})
	c.manager = ssa.NewResourceManager(cl, poller, ssa.Owner{Field: fieldManager, Group: "atoll.dev"})
	c.core, c.client = core, cl
	return nil
}

// nodeReady fails until the node is ready, and by what kubelet says since this boot:
// before that the API server tells what was true when the power went.
func (c *cluster) nodeReady(ctx context.Context) error {
	nodes, err := c.core.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range nodes.Items {
		if n.Status.NodeInfo.BootID != c.bootID {
			continue
		}
		for _, cond := range n.Status.Conditions {
			if cond.Type != corev1.NodeReady {
				continue
			}
			if cond.Status == corev1.ConditionTrue {
				return nil
			}
			return fmt.Errorf("node %s is not ready: %s", n.Name, cond.Message)
		}
	}
	return errors.New("the node has not registered yet")
}

// check says what of the objects is not as it should be. A Job of an earlier boot has
// done its work and may be gone.
func (c *cluster) check(ctx context.Context, objs []*unstructured.Unstructured, again bool) error {
	var errs []error
	var namespaces []string
	for _, o := range objs {
		if again && o.GetKind() == "Job" {
			continue
		}
		if err := c.checkObject(ctx, o); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", ssaName(o), err))
		}
		if ns := o.GetNamespace(); ns != "" && !slices.Contains(namespaces, ns) {
			namespaces = append(namespaces, ns)
		}
	}
	for _, ns := range namespaces {
		if err := c.checkPods(ctx, ns); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func ssaName(o *unstructured.Unstructured) string {
	name := o.GetKind() + " " + o.GetName()
	if ns := o.GetNamespace(); ns != "" {
		name = o.GetKind() + " " + ns + "/" + o.GetName()
	}
	return name
}

// checkObject asks kstatus, and of a webhook configuration that its CA is in.
func (c *cluster) checkObject(ctx context.Context, o *unstructured.Unstructured) error {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(o.GroupVersionKind())
	if err := c.client.Get(ctx, client.ObjectKeyFromObject(o), live); err != nil {
		if apierrors.IsNotFound(err) {
			return errors.New("is gone")
		}
		return err
	}
	res, err := status.Compute(live)
	if err != nil {
		return err
	}
	if res.Status != status.CurrentStatus {
		return fmt.Errorf("is %s: %s", strings.ToLower(res.Status.String()), res.Message)
	}
	if strings.HasSuffix(o.GetKind(), "WebhookConfiguration") {
		return checkCA(live)
	}
	return nil
}

// checkCA fails until every webhook that is a service has a CA to know it by.
func checkCA(o *unstructured.Unstructured) error {
	hooks, _, err := unstructured.NestedSlice(o.Object, "webhooks")
	if err != nil {
		return err
	}
	for _, h := range hooks {
		hook, _ := h.(map[string]any)
		_, service, _ := unstructured.NestedMap(hook, "clientConfig", "service")
		ca, _, _ := unstructured.NestedString(hook, "clientConfig", "caBundle")
		if service && ca == "" {
			return fmt.Errorf("webhook %v has no CA yet", hook["name"])
		}
	}
	return nil
}

// checkPods says which pods of a namespace do not run, and why.
func (c *cluster) checkPods(ctx context.Context, namespace string) error {
	pods, err := c.core.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range pods.Items {
		if p.Status.Phase == corev1.PodSucceeded || p.DeletionTimestamp != nil || ownedBy(p, "Job") {
			continue // a Job's own status says how it went
		}
		if why := notReady(p); why != "" {
			errs = append(errs, fmt.Errorf("pod %s/%s: %s", p.Namespace, p.Name, why))
		}
	}
	return errors.Join(errs...)
}

func ownedBy(p corev1.Pod, kind string) bool {
	return slices.ContainsFunc(p.OwnerReferences, func(r metav1.OwnerReference) bool { return r.Kind == kind })
}

// notReady is why a pod is not ready, the most telling reason first; empty if it is.
func notReady(p corev1.Pod) string {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := s.State.Waiting; w != nil && w.Reason != "" {
			return fmt.Sprintf("container %s (%s) waits: %s %s", s.Name, s.Image, w.Reason, w.Message)
		}
		if t := s.State.Terminated; t != nil && t.ExitCode != 0 {
			return fmt.Sprintf("container %s ended with %d: %s", s.Name, t.ExitCode, t.Reason)
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
