package firstboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"atoll/ignition/registry"
)

// Shares of the file system that the registry is on, in percent.
const (
	// DefaultQuota is what all that users push may take.
	DefaultQuota = 25
	// minFree is what pushes leave free: above what kubelet has free before it starts to
	// delete images (15) or evict pods.
	minFree = 20
)

// ServeWritable serves the registry that users push to until ctx ends. It takes no more than
// quota percent of its file system, and one namespace half of that. It serves before there
// is a Kubernetes; until that says who asks, nobody but root can push. ready is called once
// it serves.
func ServeWritable(ctx context.Context, quota int, ready func() error, o *Options) error {
	opts := o.withDefaults()
	total, err := fileSystemSize(RegistryStoragePath)
	if err != nil {
		return err
	}
	password, err := os.ReadFile(RegistryPasswordPath)
	if err != nil {
		opts.Log.Warn("root cannot push", "err", err)
	}
	r, err := registry.New(ctx, registry.Options{
		Dir: RegistryStoragePath, Quota: total / 100 * int64(quota), NamespaceQuota: total / 200 * int64(quota), MinFree: total / 100 * minFree,
		Bundle: "http://" + RegistryAddr, Cluster: &lateCluster{path: RegistryKubeconfigPath},
		RootPassword: strings.TrimSpace(string(password)), Log: opts.Log,
	})
	if err != nil {
		return err
	}
	var listeners []net.Listener
	for _, addr := range []string{WritableLoopbackAddr, WritableAddr} {
		ln, err := listenEarly(ctx, addr)
		if err != nil {
			return err
		}
		defer ln.Close()
		listeners = append(listeners, ln)
	}
	if err := ready(); err != nil {
		return err
	}
	return r.Serve(ctx, listeners...)
}

// fileSystemSize is the size of the file system that a folder is on, in bytes.
func fileSystemSize(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("asking for the size of %s: %w", dir, err)
	}
	return int64(st.Blocks) * st.Bsize, nil
}

// listenEarly listens on an address that the node may not have yet.
func listenEarly(ctx context.Context, addr string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) }), err)
	}}
	return config.Listen(ctx, "tcp4", addr)
}

// lateCluster asks the API server by a kubeconfig that is written when there is one, and
// again when another one has come up.
type lateCluster struct {
	path string

	mu         sync.Mutex
	kubeconfig []byte
	cluster    registry.Cluster
}

func (l *lateCluster) Pod(ctx context.Context, addr netip.Addr) (registry.Pod, error) {
	c, err := l.dialled()
	if err != nil {
		return registry.Pod{}, err
	}
	return c.Pod(ctx, addr)
}

func (l *lateCluster) ServiceAccount(ctx context.Context, token string) (registry.ServiceAccount, error) {
	c, err := l.dialled()
	if err != nil {
		return registry.ServiceAccount{}, err
	}
	return c.ServiceAccount(ctx, token)
}

// dialled reads the kubeconfig, which is small, each time: somebody pushes seldom.
func (l *lateCluster) dialled() (registry.Cluster, error) {
	data, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("the cluster is not up yet")
	}
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cluster != nil && bytes.Equal(data, l.kubeconfig) {
		return l.cluster, nil
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		return nil, err
	}
	config.WarningHandler = rest.NoWarnings{}
	config.QPS = -1 // each question is one of a client, and those are bounded
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	l.kubeconfig, l.cluster = data, registry.NewCluster(client)
	return l.cluster, nil
}
