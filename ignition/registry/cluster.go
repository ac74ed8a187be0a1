package registry

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
)

// Bounds on what is asked of the API server.
const (
	// podWait is how long a pod may run before the API server knows its address: the kubelet tells
	// it some seconds after the first container's start.
	podWait  = 20 * time.Second
	podRetry = 500 * time.Millisecond
	// askTimeout bounds one question.
	askTimeout = 10 * time.Second
	// maxToken is the size of the largest token that is asked about, in bytes.
	maxToken = 8 << 10
)

// jwt is the form of a service account's token (RFC 7519).
var jwt = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// NewCluster asks a Kubernetes API server, each time anew, whose an address or a token is. It
// needs the rights to list pods and to create tokenreviews, and no other:
//
//   - {apiGroups: [""], resources: [pods], verbs: [list]}
//   - {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
func NewCluster(client kubernetes.Interface) Cluster {
	return &cluster{client: client, wait: podWait, own: own}
}

type cluster struct {
	client kubernetes.Interface
	wait   time.Duration
	own    func(netip.Addr) bool
}

func (c *cluster) Pod(ctx context.Context, addr netip.Addr) (Pod, error) {
	if c.own(addr) {
		return Pod{}, ErrHostNetwork
	}
	for end := time.Now().Add(c.wait); ; {
		pod, err := c.find(ctx, addr)
		if err != nil || pod.Namespace != "" {
			return pod, err
		}
		if time.Now().After(end) {
			return Pod{}, ErrUnknown
		}
		select {
		case <-time.After(podRetry):
		case <-ctx.Done():
			return Pod{}, ctx.Err()
		}
	}
}

// find returns the one pod that has an address, and none if there is not exactly one: an
// address goes to another pod when the one that had it ends.
func (c *cluster) find(ctx context.Context, addr netip.Addr) (Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	// Without a resource version the answer is the newest state, not that of a cache.
	pods, err := c.client.CoreV1().Pods("").List(ctx, meta.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("status.podIP", addr.String()).String(),
	})
	if err != nil {
		return Pod{}, fmt.Errorf("listing pods: %w", err)
	}
	var found []Pod
	for i := range pods.Items {
		p := &pods.Items[i]
		if !has(p, addr) || over(p) {
			continue
		}
		if p.Spec.HostNetwork {
			return Pod{}, ErrHostNetwork
		}
		found = append(found, Pod{p.Namespace, p.Name})
	}
	if len(found) != 1 {
		return Pod{}, nil
	}
	return found[0], nil
}

// has says whether a pod has an address.
func has(p *core.Pod, addr netip.Addr) bool {
	a, err := netip.ParseAddr(p.Status.PodIP)
	return err == nil && a.Unmap() == addr
}

// over says whether nothing of a pod runs any more.
func over(p *core.Pod) bool {
	switch p.Status.Phase {
	case core.PodRunning, core.PodPending: // those whose first containers run are pending too
	default:
		return true
	}
	if p.DeletionTimestamp == nil {
		return false
	}
	for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if s.State.Running != nil {
			return false
		}
	}
	return true
}

// own says whether an address is this machine's: then a socket can be bound to it. To list the
// addresses would take a netlink socket, which the registry's unit need not have.
func own(addr netip.Addr) bool {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return false
	}
	conn.Close() // nothing was sent
	return true
}

func (c *cluster) ServiceAccount(ctx context.Context, token string) (ServiceAccount, error) {
	if len(token) > maxToken || !jwt.MatchString(token) {
		return ServiceAccount{}, ErrUnknown
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	review, err := c.client.AuthenticationV1().TokenReviews().Create(ctx, &authentication.TokenReview{
		Spec: authentication.TokenReviewSpec{Token: token},
	}, meta.CreateOptions{})
	if err != nil {
		return ServiceAccount{}, fmt.Errorf("reviewing a token: %w", err)
	}
	name, ok := strings.CutPrefix(review.Status.User.Username, "system:serviceaccount:")
	namespace, account, both := strings.Cut(name, ":")
	if !review.Status.Authenticated || !ok || !both || namespace == "" || account == "" {
		return ServiceAccount{}, ErrUnknown
	}
	return ServiceAccount{namespace, account}, nil
}
