package kubeflow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll/bundle"
	"atoll/test/guest"
	"atoll/test/programs/imagedir"
)

// memory is what the guest gets, in MiB: half as much again as Kubeflow with all its programs takes.
const memory = 10240

// fullVariable names the environment variable that, where it is not empty, asks for the whole set.
const fullVariable = "ATOLL_KUBEFLOW_FULL"

// labK3s is where "make lab-k3s" puts the lab k3s release.
const labK3s = "../../build/k3s"

// TestKubeflowBoot makes the appliance from upstream's manifests and programs and boots it:
// with a power cut in the middle of the first boot, to Ready, through the checks of what
// runs in it, and after another power cut, in the middle of a session, to Ready again.
// ATOLL_KUBEFLOW_FULL=1 takes the whole set of programs, ATOLL_KUBEFLOW_AUTH the other way
// to sign in.
func TestKubeflowBoot(t *testing.T) {
	o := needAppliance(t)
	guest.Alone(t)
	key := guest.NewKey(t)
	o.Users = []bundle.User{{Name: "test", Sudo: true, SSHAuthorizedKeys: []string{key.Authorized()}}}
	began := time.Now()
	image, _, err := Build(t.Context(), o)
	if errors.Is(err, errNoEnvoy) {
		skip(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %s", since(began))
	config := guest.Config{
		Atoll: o.Atoll, Image: image, Overlay: filepath.Join(o.Dir, "overlay.qcow2"), MemoryMiB: memory,
		Ports: []int{80, 443}, User: "test", Key: key,
	}

	t.Run("cut in the first boot", func(t *testing.T) {
		g := guest.Boot(t.Context(), t, config)
		// Then pods start for which images were unpacked just before.
		awaitUnready(t, g)
		g.Cut()
		t.Logf("atoll boot said:\n%s", g.Said())
	})
	t.Run("to the end", func(t *testing.T) {
		g := boot(t, config)
		report(t, g)
		t.Run("timers", func(t *testing.T) { checkTimers(t, g) })
		check(t, g, "")
		t.Run("anonymous", func(t *testing.T) { checkAnonymous(t, g) })
		t.Run("forward", func(t *testing.T) { checkForward(t, g) })
		t.Run("closed", func(t *testing.T) { checkClosed(t, g, o.Auth) })
		// Somebody is signed in when the power fails, and still is afterwards.
		again := sync.OnceFunc(func() {
			g.Cut()
			config.Addrs = g.Addrs()
			g = boot(t, config)
			report(t, g)
		})
		checkSignIn(t, g, o.Auth, again)
		again() // where there is no browser
		check(t, g, "^TestPushed$")
		if err := g.PowerOff(t.Context()); err != nil || !strings.Contains(g.Said(), "powering off") {
			t.Errorf("Ctrl-C: %v\n%s", err, g.Said())
		}
	})
}

// skip skips the test, or fails it where somebody has asked for it, as "make test-kubeflow" does.
func skip(t *testing.T, why error) {
	t.Helper()
	if os.Getenv("ATOLL_KUBEFLOW_AUTH") != "" || os.Getenv(fullVariable) != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// needAppliance builds the programs that make the appliance, and skips the test where
// something is missing.
func needAppliance(t *testing.T) *Options {
	t.Helper()
	o := &Options{
		Dir: t.TempDir(), K3s: labK3s, Programs: "../../build/programs", Auth: cmp.Or(os.Getenv("ATOLL_KUBEFLOW_AUTH"), "oauth2-proxy"), Log: t.Output(),
		Manifests: Manifests(t), Full: os.Getenv(fullVariable) != "",
	}
	if _, err := os.Stat(filepath.Join(labK3s, "k3s")); err != nil {
		skip(t, errors.New("no lab k3s release; make lab-k3s builds it"))
	}
	if _, err := imagedir.Read(o.Programs); err != nil {
		skip(t, fmt.Errorf("no programs; make programs builds them: %w", err))
	}
	for _, tool := range []string{"qemu-system-x86_64", "qemu-img", "mmdebstrap", "docker-registry"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(t, fmt.Errorf("%s is not installed; make deps installs it", tool))
		}
	}
	o.Atoll, o.LabImages = filepath.Join(o.Dir, "atoll"), filepath.Join(o.Dir, "labimages")
	for out, program := range map[string]string{o.Atoll: "atoll/cmd/atoll", o.LabImages: "atoll/test/labimages"} {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, program)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", program, err, text)
		}
	}
	return o
}

// boot boots the machine until its stack is ready.
func boot(t *testing.T, config guest.Config) *guest.Guest {
	t.Helper()
	g := guest.Boot(t.Context(), t, config)
	began := time.Now()
	if err := g.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %s; atoll boot said:\n%s", since(began), g.Said())
	return g
}

// report logs what the machine takes: memory, disk, and each pod with its restarts.
func report(t *testing.T, g *guest.Guest) {
	t.Helper()
	for _, command := range []string{
		"free -m",
		"df -h -x tmpfs -x devtmpfs -x overlay",
		"sudo k3s kubectl top node",
		"sudo k3s kubectl top pod -A --sum",
		"sudo k3s kubectl get pod -A -o wide",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		out, err := g.Run(ctx, command, "")
		cancel()
		if err != nil {
			t.Logf("%s: %v", command, err)
		}
		t.Logf("%s:\n%s", command, out)
	}
}

// checkTimers: where the processor is emulated, and only there, the slack of timers is a tick, for
// pods too.
func checkTimers(t *testing.T, g *guest.Guest) {
	// It fails where there is no virtual machine.
	virt, err := g.Run(t.Context(), "systemd-detect-virt", "")
	want := "50000\n" // ns; the kernel's default
	if err == nil && virt == "qemu\n" {
		want = "4000000\n"
	}
	for _, program := range []string{"k3s", "pilot-discovery"} {
		if out, err := g.Run(t.Context(), "sudo cat /proc/$(pgrep -o "+program+")/timerslack_ns", ""); err != nil || out != want {
			t.Errorf("%s has a timer slack of %q ns, %v; want %q", program, out, err, want)
		}
	}
}

// check runs the checks of a cluster, whose names the pattern matches, against the guest's.
// Whether that has the whole set they know from fullVariable, as this test does.
func check(t *testing.T, g *guest.Guest, pattern string) {
	t.Helper()
	kubeconfig, err := g.Kubeconfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k3s, err := filepath.Abs(filepath.Join(labK3s, "k3s"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "-timeout", "100m", "-run", pattern, "./checks")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "ATOLL_KUBECTL="+k3s+" kubectl --kubeconfig "+kubeconfig)
	out, err := cmd.CombinedOutput()
	t.Logf("checks took %s:\n%s", since(began), out)
	if err != nil {
		t.Errorf("checks of the cluster: %v", err)
	}
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Second) }
