// K3s is a stand-in for Rancher's k3s, for places where no k3s release can be reached: real Kubernetes, etcd,
// containerd and runc, built from public Go modules behind k3s's command line, files and configuration keys.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/v2/cmd/containerd/command"
	ctr "github.com/containerd/containerd/v2/cmd/ctr/app"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins"

	"atoll/test/k3s/node/internal/config"
	"atoll/test/k3s/node/internal/payload"
)

const (
	adminKubeconfig  = "/etc/rancher/k3s/k3s.yaml"
	containerdSocket = "/run/k3s/containerd/containerd.sock"
)

// The components run as children of "k3s server": this program under these names.
var components = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kube-proxy":              proxy.NewProxyCommand,
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "k3s:", err)
		os.Exit(1)
	}
}

// run chooses by the name the program was called under, else by its first argument.
func run(args []string) error {
	name := filepath.Base(args[0])
	if name == "k3s" || name == "exe" {
		if len(args) < 2 {
			return usage()
		}
		args = args[1:]
		name = args[0]
	}
	os.Args = append([]string{name}, args[1:]...)
	if component, ok := components[name]; ok {
		os.Exit(cli.Run(component()))
	}
	switch name {
	case "server":
		return runServer(args[1:])
	case "etcd":
		return runEtcd(args[1:])
	case "containerd":
		// etcd, in this same program, has registered the names of containerd's metrics already.
		prometheus.DefaultRegisterer = prometheus.NewRegistry()
		return command.App().Run(os.Args)
	case "ctr":
		setenv("CONTAINERD_ADDRESS", containerdSocket)
		setenv("CONTAINERD_NAMESPACE", "k8s.io")
		return ctr.New().Run(os.Args)
	case "kubectl":
		setenv("KUBECONFIG", adminKubeconfig)
		os.Exit(cli.Run(kubectl.NewDefaultKubectlCommand()))
	case "crictl":
		setenv("CONTAINER_RUNTIME_ENDPOINT", "unix://"+containerdSocket)
		return runHelper("crictl", args[1:])
	case "--version", "-v", "version":
		fmt.Printf("k3s version %s (stand-in built from public Go modules; not Rancher's k3s)\n", version.Get().GitVersion)
		return nil
	}
	return usage()
}

func usage() error {
	return fmt.Errorf("usage: k3s server|kubectl|crictl|ctr|--version")
}

func setenv(key, value string) {
	if os.Getenv(key) == "" {
		os.Setenv(key, value)
	}
}

// runHelper becomes one of the programs that the binary carries.
func runHelper(name string, args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	bin, err := payload.Unpack(exe, filepath.Join(config.DataDir, "data"))
	if err != nil {
		return err
	}
	path, err := exec.LookPath(filepath.Join(bin, name))
	if err != nil {
		return err
	}
	return syscall.Exec(path, append([]string{name}, args...), os.Environ())
}
