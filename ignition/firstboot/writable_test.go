package firstboot

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"atoll/ignition/registry"
)

// TestWritable: after the installation, and after another one in a boot after it, the
// registry may ask who is who and nothing else, and pods find it.
func TestWritable(t *testing.T) {
	if !isolated(t) {
		return
	}
	cp := startControlPlane(t)
	o := testOptions(t)
	o.installed = filepath.Join(t.TempDir(), "installed.json")
	p := cp.playKubelet(t)
	p.set("ready")
	path := filepath.Join(filepath.Dir(o.Status), "registry.kubeconfig")
	core := func() kubernetes.Interface {
		t.Helper()
		config, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Fatal(err)
		}
		c, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ctx := t.Context()
	late := &lateCluster{path: path}
	if _, err := late.ServiceAccount(ctx, "a.b.c"); err == nil || errors.Is(err, registry.ErrUnknown) || !strings.Contains(err.Error(), "not up yet") {
		t.Errorf("before there is a cluster: %v", err)
	}
	// A stack that has the same namespace, with more to it.
	plan := labPlan(1, time.Minute)
	plan.Phases[0].Manifest += "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: atoll, labels: {site: north}}\n"
	for boot := range 2 {
		if err := Install(ctx, pack(t, release, plan), cp.kubeconfig, o); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o037 != 0 {
			t.Errorf("boot %d: others may read or write the credentials: %v, %v", boot, info.Mode(), err)
		}
		its := core()
		if _, err := its.CoreV1().Pods("").List(ctx, metav1.ListOptions{}); err != nil {
			t.Errorf("boot %d: listing pods: %v", boot, err)
		}
		review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: "none"}}
		if _, err := its.AuthenticationV1().TokenReviews().Create(ctx, review, metav1.CreateOptions{}); err != nil {
			t.Errorf("boot %d: asking whose token it is: %v", boot, err)
		}
		if _, err := its.CoreV1().Secrets("").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("boot %d: reading secrets: %v", boot, err)
		}
		if err := its.CoreV1().Pods("lab").Delete(ctx, "none", metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("boot %d: deleting a pod: %v", boot, err)
		}
		token, err := cp.core.CoreV1().ServiceAccounts("lab").CreateToken(ctx, "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := late.ServiceAccount(ctx, token.Status.Token); err != nil || got != (registry.ServiceAccount{Namespace: "lab", Name: "default"}) {
			t.Errorf("boot %d: whose the token is: %v, %v", boot, got, err)
		}
		if got, err := late.Pod(ctx, netip.MustParseAddr(nodeAddress)); !errors.Is(err, registry.ErrHostNetwork) {
			t.Errorf("boot %d: whose the node's address is: %v, %v", boot, got, err)
		}
		// Somebody took the token back, and the machine boots again.
		if err := cp.core.CoreV1().Secrets("atoll").Delete(ctx, "registry", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		until(t, "end of the token", func() error {
			_, err := its.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
			if !apierrors.IsUnauthorized(err) {
				return fmt.Errorf("it is good still: %w", err)
			}
			return nil
		})
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if ns, err := cp.core.CoreV1().Namespaces().Get(ctx, "atoll", metav1.GetOptions{}); err != nil || ns.Labels["site"] != "north" {
		t.Errorf("what the stack says of the namespace is gone: %v, %v", ns.Labels, err)
	}
	slice, err := cp.core.DiscoveryV1().EndpointSlices("atoll").Get(ctx, "registry", metav1.GetOptions{})
	if err != nil || slice.Endpoints[0].Addresses[0]+":5001" != WritableAddr || *slice.Ports[0].Port != 5001 {
		t.Errorf("the service leads to %+v, %v", slice, err)
	}
}
