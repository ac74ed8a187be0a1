package firstboot

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	ssautil "github.com/fluxcd/pkg/ssa/utils"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"atoll/bundle"
)

// Where the registry that users push to listens: on loopback for containerd and for root,
// and on the node's own address for pods, which reach it by the service registry.atoll. It
// is a stranger's neither way: nobody is routed there, and the firewall has it closed.
const (
	WritableLoopbackAddr = "127.0.0.1:5001"
	WritableAddr         = "203.0.113.254:5001"
)

// RegistryUser is the system user and group that serves it; the image has it.
const RegistryUser = "atoll-registry"

// registryPassword is the secret with which root of the node pushes under any name.
const registryPassword = "registry-password"

// Where the registry reads who is who, and what it stores.
const (
	// RegistryKubeconfigPath is its way to ask the API server, written at every boot.
	RegistryKubeconfigPath = "/run/atoll/registry.kubeconfig"
	// RegistryPasswordPath has root's password.
	RegistryPasswordPath = "/run/atoll/" + registryPassword
	// RegistryStoragePath is on the data partition.
	RegistryStoragePath = "/var/lib/rancher/registry"
)

// writableTimeout bounds the phase. The registry is up before Kubernetes is.
const writableTimeout = 5 * time.Minute

// nodeManager owns the fields of what the node adds for itself: a stack may have the same
// objects, and neither must take away what the other one has set.
const nodeManager = "atoll-node"

//go:embed writable.yaml
var writableYAML []byte

// openWritable lets pods find the registry that users push to, lets that ask who they are,
// and waits until it answers. It runs at every boot: the credentials are not kept.
func (c *cluster) openWritable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writableTimeout)
	defer cancel()
	objs, err := ssautil.ReadObjects(bytes.NewReader(writableYAML))
	if err != nil {
		return err
	}
	taken := taken{}
	return c.retry(ctx, phaseWritable, func() error {
		if err := c.apply(ctx, nodeManager, objs, taken); err != nil {
			return err
		}
		token, err := c.registryToken(ctx)
		if err != nil {
			return err
		}
		if err := writeRegistryKubeconfig(filepath.Join(filepath.Dir(c.opts.Status), filepath.Base(RegistryKubeconfigPath)), c.kubeconfig, token); err != nil {
			return err
		}
		return answers(ctx, "http://"+WritableAddr+"/v2/")
	})
}

// registryToken reads the token that Kubernetes made for the registry.
func (c *cluster) registryToken(ctx context.Context) (string, error) {
	s, err := c.core.CoreV1().Secrets("atoll").Get(ctx, "registry", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if len(s.Data["token"]) == 0 {
		return "", errors.New("Secret atoll/registry has no token yet")
	}
	return string(s.Data["token"]), nil
}

// writeRegistryKubeconfig writes a kubeconfig that asks the same API server as the admin's,
// with the token. It is for the registry's user.
func writeRegistryKubeconfig(path string, admin []byte, token string) error {
	config, err := clientcmd.Load(admin)
	if err != nil {
		return err
	}
	if err := clientcmdapi.MinifyConfig(config); err != nil {
		return err
	}
	if err := clientcmdapi.FlattenConfig(config); err != nil {
		return err
	}
	for name := range config.AuthInfos {
		config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	}
	data, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return bundle.WriteFile(path, func(f *os.File) error {
		if err := readableBy(f, RegistryUser); err != nil {
			return err
		}
		_, err := f.Write(data)
		return err
	})
}

// answers fails until a registry answers at the URL, be it that it wants to know who asks.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req) // by no proxy
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}
