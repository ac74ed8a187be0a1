package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// labK3s is where "make lab-k3s" puts the lab k3s release.
const labK3s = "../build/k3s"

// TestLab is the whole way of the lab appliance: lock, mirror, bundle, bake, a first boot
// until the stack is ready, and a second one of the same disk.
func TestLab(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a real machine; not in -short")
	}
	release, err := filepath.Abs(labK3s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(release, "k3s")); err != nil {
		t.Skip("no lab k3s release; make lab-k3s builds it")
	}
	for _, tool := range []string{"qemu-system-x86_64", "qemu-img", "mmdebstrap", "docker-registry"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed; make deps installs it", tool)
		}
	}
	dir := t.TempDir()
	atoll, labimages := filepath.Join(dir, "atoll"), filepath.Join(dir, "labimages")
	run(t, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", atoll, "atoll/cmd/atoll")
	run(t, "go", "build", "-o", labimages, "atoll/test/labimages")

	text, err := os.ReadFile("lab/appliance.yaml")
	if err != nil {
		t.Fatal(err)
	}
	definition := filepath.Join(dir, "appliance.yaml")
	text = bytes.ReplaceAll(text, []byte("../../build/k3s"), []byte(release))
	if err := os.WriteFile(definition, text, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, labimages, "serve", "-dir", filepath.Join(dir, "registry"), "--", "../scripts/lab.sh", "{registry}", atoll, definition)

	image, bundle := filepath.Join(dir, "build/lab.raw"), filepath.Join(dir, "build/lab.bundle.tar")
	run(t, atoll, "bundle", "verify", bundle)
	if out := run(t, atoll, "bundle", "inspect", bundle); !strings.Contains(out, "docker.io/library/hello-lab:1.0") {
		t.Errorf("the image that only a ConfigMap names is not in the bundle:\n%s", out)
	}
	if _, err := exec.LookPath("sgdisk"); err == nil {
		if out := run(t, "sgdisk", "-v", image); !strings.Contains(out, "No problems found") {
			t.Errorf("partition table is not sound:\n%s", out)
		}
	}

	overlay, console := filepath.Join(dir, "overlay.qcow2"), filepath.Join(dir, "console.log")
	for _, boot := range []string{"first", "second"} {
		out, err := command(atoll, "boot", image, "--overlay", overlay, "--log", console, "--junit", filepath.Join(dir, boot+".xml")).CombinedOutput()
		t.Logf("%s boot:\n%s", boot, out)
		if err != nil {
			text, _ := os.ReadFile(console)
			t.Fatalf("%s boot: %v; the console's end:\n%s", boot, err, text[max(0, len(text)-4096):])
		}
		if !strings.Contains(string(out), "lab is ready after") {
			t.Errorf("%s boot does not say that it is ready", boot)
		}
	}
}

func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}

// run runs a program that must succeed and gives what it printed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	t.Logf("%s:\n%s", filepath.Base(name), out)
	return string(out)
}
