// Package gateway tests the gateway of the Kubeflow stack, for each way to sign in: a real
// Envoy, configured by a real istiod from the objects of the rendered stack, with Dex and
// what signs people in behind it, and a server that shows what it was sent in the place of
// each published service. All runs in network and mount namespaces of its own, with the
// names and ports of the cluster, and needs no Kubernetes.
package gateway

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"atoll/test/kubeflow"
)

// inside is set in the process that has namespaces of its own.
const inside = "ATOLL_TEST_GATEWAY"

// skip says why the tests cannot run here, if so.
var skip error

func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		if skip = enter(); skip == nil {
			os.Exit(m.Run())
		}
		fmt.Fprintln(os.Stderr, skip)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "gateway")
	if err == nil {
		err = buildPrograms(dir)
	}
	status := 0
	if skip = err; skip != nil {
		status = m.Run()
	} else {
		status = again(dir)
	}
	os.RemoveAll(dir)
	os.Exit(status)
}

// again runs these tests in new namespaces. With this process ends that one, and with that
// one all programs that it has started.
func again(dir string) int {
	runtime.LockOSThread() // whose end would be the signal
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "making namespaces:", err)
		return 1
	}
	return 0
}

// enter makes 10.0.0.0/8 addresses of this machine, and lets the names of the cluster be
// written.
func enter() error {
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"addr", "add", "10.0.0.1/8", "dev", "lo"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w\n%s", args, err, out)
		}
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	return nil
}

// built are the programs that test/programs makes.
var built = []string{"pilot-discovery", "pilot-agent", "envoy", "dex", "oauth2-proxy"}

// buildPrograms looks for the programs, and makes what else the tests need where modules
// can be fetched, which is not within the namespaces: the stand-in for AuthService, and the
// template of Envoy's own configuration, which is in Istio's module.
func buildPrograms(dir string) error {
	if os.Getuid() != 0 {
		return errors.New("only root can make a network namespace")
	}
	for _, name := range built {
		if _, err := program(name); err != nil {
			return err
		}
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "authservice"), ".")
	cmd.Dir = "../authservice"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the stand-in for AuthService: %w\n%s", err, out)
	}
	cmd = exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio")
	cmd.Dir = "../../programs/modules/istio"
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("looking for Istio's module: %w", err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "tools/packaging/common", bootstrap))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, bootstrap), data, 0o600)
}

const bootstrap = "envoy_bootstrap.json"

// program returns the path of a program, or of another file that the tests need.
func program(name string) (string, error) {
	if !slices.Contains(built, name) {
		return filepath.Join(os.Getenv(inside), name), nil
	}
	root, err := kubeflow.Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "build/programs/bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not built; make programs builds it: %w", name, err)
	}
	return path, nil
}
