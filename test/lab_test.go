package test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"atoll/test/guest"
)

// labK3s is where "make lab-k3s" puts the lab k3s release.
const labK3s = "../build/k3s"

// TestLab is the whole way of the lab appliance: lock, mirror, bundle, bake, a first boot
// with power cuts until the stack is ready, and a second one of the same disk.
func TestLab(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a real machine; not in -short")
	}
	release := needLab(t)
	guest.Alone(t)
	dir := t.TempDir()
	atoll, labimages := programs(t, dir)

	text, err := os.ReadFile("lab/appliance.yaml")
	if err != nil {
		t.Fatal(err)
	}
	definition := filepath.Join(dir, "appliance.yaml")
	text = bytes.ReplaceAll(text, []byte("../../build/k3s"), []byte(release))
	beside := newNeighbour(t, dir)
	if beside != nil {
		text = beside.define(t, dir, text)
	}
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

	cut := []string{"-f", definition, "-o"}
	cutShort(t, bundle, atoll, append([]string{"bundle"}, cut...)...)
	cutShort(t, image, atoll, append([]string{"bake"}, cut...)...)
	tooSmall(t, atoll, append([]string{"bake"}, cut...)...)

	overlay, console := filepath.Join(dir, "overlay.qcow2"), filepath.Join(dir, "console.log")
	// The plug is pulled while Ignition writes and while k3s starts, or thereabouts: a power
	// cut is harmless at any point.
	for _, after := range []string{"20s", "80s"} {
		out, err := command(atoll, "boot", image, "--overlay", overlay, "--timeout", after).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "stack was not ready in") {
			t.Fatalf("boot that is cut off after %s: %v\n%s", after, err, out)
		}
	}
	for _, boot := range []string{"first", "second"} {
		report := filepath.Join(dir, boot+".xml")
		cmd := command(atoll, "boot", image, "--overlay", overlay, "--log", console, "--junit", report)
		var out []byte
		if beside != nil {
			out, err = beside.during(t, cmd)
		} else {
			out, err = cmd.CombinedOutput()
		}
		t.Logf("%s boot:\n%s", boot, out)
		if err != nil {
			text, _ := os.ReadFile(console)
			t.Fatalf("%s boot: %v; the console's end:\n%s", boot, err, text[max(0, len(text)-4096):])
		}
		if !strings.Contains(string(out), "lab is ready after") {
			t.Errorf("%s boot does not say that it is ready", boot)
		}
		for _, path := range []string{console, report} {
			text, err := os.ReadFile(path)
			if err != nil || bytes.Contains(text, []byte(siteHash[:13])) || bytes.Contains(text, []byte(siteSecret)) {
				t.Errorf("%s cannot be read, or has a secret of the site: %v", path, err)
			}
		}
	}
}

// cutShort kills a command in the middle of writing a file that is there already from an
// earlier run, and runs it again: the file is never half, and ends with the same bytes.
func cutShort(t *testing.T, want, name string, args ...string) {
	t.Helper()
	got := filepath.Join(t.TempDir(), filepath.Base(want))
	args = append(args, got)
	cmd := command(name, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		half, err := filepath.Glob(filepath.Join(filepath.Dir(got), ".*.tmp-*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(half) > 0 {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("%v ended before it could be killed: %v", args, err)
		case <-time.After(time.Millisecond):
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if _, err := os.Stat(got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v was killed and left %s: %v", args, got, err)
	}
	run(t, name, args...)
	run(t, "cmp", want, got)
	entries, err := os.ReadDir(filepath.Dir(got))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); name != filepath.Base(got) && name != filepath.Base(got)+".sha256" {
			t.Errorf("%v left %s", args, name)
		}
	}
}

// tooSmall runs a command that writes to a file system with too little room.
func tooSmall(t *testing.T, name string, args ...string) {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Logf("no small file system to try a full disk with: %v", err)
		return
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	out, err := command(name, append(args, filepath.Join(dir, "out"))...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "hint: free some space") {
		t.Errorf("%v on a full disk: %v\n%s", args, err, out)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v left something on a full disk: %v %v", args, entries, err)
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
