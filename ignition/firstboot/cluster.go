package firstboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/pkg/ssa"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
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
	node    string // name of the node, once it is ready

	kubeconfig []byte // with which it was dialled
}

// connect waits until k3s answers and its node is ready.
func connect(ctx context.Context, kubeconfig string, opts Options) (*cluster, error) {
	id, err := os.ReadFile(bootIDFile)
	if err != nil {
		return nil, err
	}
	c := &cluster{opts: opts, bootID: strings.TrimSpace(string(id))}
	err = c.retry(ctx, phaseK3s, func() error {
		// K3s writes it anew where certificates change, so one of an earlier boot may lie there.
		data, err := os.ReadFile(kubeconfig)
		if err == nil && !bytes.Equal(data, c.kubeconfig) {
			err = c.dial(data)
		}
		if err != nil {
			return fmt.Errorf("%s%w", unitState(ctx), err)
		}
		c.kubeconfig = data
		return c.nodeReady(ctx)
	})
	if err != nil && ctx.Err() != nil {
		return nil, &failure{err, k3sLog()}
	}
	return c, err
}

// unitState says what systemd knows of k3s, for a message; nothing where it cannot be asked.
func unitState(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--value", "--property=ActiveState,SubState,NRestarts", "k3s.service").Output()
	state := strings.Fields(string(out)) // in systemd's own order: NRestarts is first
	if err != nil || len(state) != 3 {
		return ""
	}
	return fmt.Sprintf("k3s.service is %s (%s), restarted %s times: ", state[1], state[2], state[0])
}

// k3sLog is the tail of k3s's log.
func k3sLog() []string {
	out, err := exec.Command("journalctl", "--boot", "--unit=k3s.service", "--lines=20", "--output=cat", "--no-pager").Output()
	if err != nil {
		return nil
	}
	return tail(string(out), maxLogLines)
}

// dial makes the clients that a kubeconfig describes.
func (c *cluster) dial(kubeconfig []byte) error {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
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
				c.node = n.Name
				return nil
			}
			return fmt.Errorf("node %s is not ready: %s", n.Name, cond.Message)
		}
	}
	return errors.New("the node has not registered yet")
}

// uid tells this cluster from any other.
func (c *cluster) uid(ctx context.Context) (types.UID, error) {
	ns, err := c.core.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return ns.UID, nil
}
