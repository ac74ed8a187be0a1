package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"atoll/bundle"
)

// TestMain lets this program stand in for QEMU, where a real guest would take minutes
// or cannot be made to fail at will, and for the program that runs QEMU.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "qemu-system-x86_64":
		os.Exit(fakeQEMU())
	case "booter":
		_, err := Boot(context.Background(), os.Getenv("BOOT_IMAGE"), nil)
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// guest is what a fake QEMU can do to whoever runs it.
type guest struct {
	status, qmp *os.File
	commands    *bufio.Scanner
}

func fakeQEMU() int {
	if slices.Contains(os.Args, "kvm") {
		return probed(os.Getenv("FAKE_KVM"))
	}
	if path := os.Getenv("FAKE_ARGS"); path != "" {
		text := fmt.Sprint(os.Getpid(), "\n", strings.Join(os.Args, "\n"))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return 1
		}
	}
	g := guest{status: os.NewFile(statusFD, "status"), qmp: os.NewFile(qmpFD, "qmp")}
	g.commands = bufio.NewScanner(g.qmp)
	return guests[os.Getenv("FAKE_GUEST")](&g)
}

func probed(how string) int {
	if how == "works" {
		fmt.Print("firmware")
		time.Sleep(time.Minute)
	}
	fmt.Fprintln(os.Stderr, "failed to set MSR 0x10a to 0x69")
	return 134
}

func (g *guest) say(s bundle.Status) {
	data, _ := json.Marshal(s)
	fmt.Fprintf(g.status, "%s\n", data)
}

// heard waits until whoever runs the guest knows that it is ready, and has written that to
// a file beside the one of the arguments.
func (g *guest) heard() {
	g.say(ready)
	for {
		if _, err := os.Stat(os.Getenv("FAKE_ARGS") + ".ready"); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// wait ends well when the command comes.
func (g *guest) wait(command string) int {
	for g.commands.Scan() {
		if strings.Contains(g.commands.Text(), command) {
			return 0
		}
	}
	return 7
}

var (
	running = bundle.Status{Appliance: "lab", State: bundle.StateRunning, Phases: []bundle.PhaseStatus{
		{Name: "prepare", State: bundle.StateReady, Seconds: 1.5}, {Name: "k3s", State: bundle.StateRunning, Message: "waiting for the API"}, {Name: "web", State: bundle.StatePending}}}
	ready = bundle.Status{Appliance: "lab", State: bundle.StateReady, Phases: []bundle.PhaseStatus{
		{Name: "prepare", State: bundle.StateReady, Seconds: 1.5}, {Name: "k3s", State: bundle.StateReady, Seconds: 2}, {Name: "web", State: bundle.StateReady, Seconds: 3}}}
	failed = bundle.Status{Appliance: "lab", State: bundle.StateFailed, Error: "image \x1b[31mweb\x1b[0m cannot be pulled", Log: []string{"the log's \x07tail"}, Phases: []bundle.PhaseStatus{
		{Name: "k3s", State: bundle.StateReady}, {Name: "web", State: bundle.StateFailed}}}
)

var guests = map[string]func(*guest) int{
	"ready":         func(g *guest) int { g.say(running); g.say(running); g.say(ready); return g.wait("quit") },
	"poweroff":      func(g *guest) int { g.say(ready); return g.wait("system_powerdown") },
	"unclean":       func(g *guest) int { g.say(ready); g.wait("quit"); return 3 },
	"failed":        func(g *guest) int { g.say(running); g.say(failed); return g.wait("never") },
	"at once":       func(g *guest) int { g.say(running); g.say(ready); return 0 },
	"deaf":          func(g *guest) int { g.say(ready); return g.wait("never") },
	"ready, breaks": func(g *guest) int { g.heard(); fmt.Fprintln(os.Stderr, "out of memory"); return 1 },
	"ready, full": func(g *guest) int {
		g.heard()
		fmt.Fprintln(g.qmp, `{"event":"BLOCK_IO_ERROR","data":{"nospace":true,"action":"stop","reason":"No space left on device"}}`)
		return g.wait("never")
	},
	"ready, panic": func(g *guest) int {
		g.heard()
		fmt.Println("Kernel panic - not syncing: later")
		return g.wait("never")
	},
	"talks": func(g *guest) int {
		g.say(ready)
		for i := range 8 {
			s := ready
			s.Log = []string{fmt.Sprint(i, strings.Repeat(" more", 1<<16))} // more than a socket holds
			g.say(s)
		}
		return g.wait("quit")
	},
	"halves": func(g *guest) int {
		fmt.Fprint(g.status, "{\"state\":\"rea\n\nnull\n[]\n{}\n\x00\xff\n")
		g.say(ready)
		return g.wait("quit")
	},
	"long": func(g *guest) int {
		fmt.Fprint(g.status, strings.Repeat("x", 2*maxStatus))
		return g.wait("never")
	},
	"panic": func(g *guest) int {
		fmt.Print("[ 1.0] Kernel panic - not syncing: no init\r\n---[ end")
		return g.wait("never")
	},
	"emergency": func(g *guest) int {
		fmt.Print("no such user\n[  OK  ] Reached target \x1b[0;1;39memergency.target\x1b[0m - Emer")
		return 0
	},
	"ends":   func(g *guest) int { g.say(running); fmt.Println("reboot: Power down"); return 0 },
	"breaks": func(g *guest) int { fmt.Fprintln(os.Stderr, "could not load firmware"); return 1 },
	"silent": func(g *guest) int { g.say(running); fmt.Println("tick"); time.Sleep(time.Minute); return 0 },
	"mute":   func(g *guest) int { return g.wait("never") },
	"full": func(g *guest) int {
		fmt.Fprintln(g.qmp, `{"event":"BLOCK_IO_ERROR","data":{"nospace":true,"action":"stop","reason":"No space left on device"}}`)
		return g.wait("never")
	},
	"flood": func(g *guest) int {
		for range 64 {
			fmt.Print(strings.Repeat("\x1b[2Jno line end", 1<<16))
		}
		for i := range 10 {
			fmt.Println("line", i)
		}
		g.say(ready)
		return g.wait("quit")
	},
}

// fake puts the fake QEMU first in PATH and returns an image for it, and the file that
// gets its process ID and arguments.
func fake(t *testing.T, name string) (image, args string) {
	t.Helper()
	img, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed (package qemu-utils)")
	}
	if _, err := findTools(); err != nil && !strings.Contains(err.Error(), "qemu-system") {
		t.Skip(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin, dir := t.TempDir(), t.TempDir()
	for name, target := range map[string]string{"qemu-system-x86_64": self, "qemu-img": img, "booter": self} {
		if err := os.Symlink(target, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	image, args = filepath.Join(dir, "a, b.raw"), filepath.Join(dir, "args")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	for k, v := range map[string]string{"PATH": bin, "TMPDIR": tmp, "FAKE_GUEST": name, "FAKE_ARGS": args, "FAKE_KVM": "", "BOOT_IMAGE": image} {
		t.Setenv(k, v)
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("temporary files are left: %v %v", left, err)
		}
	})
	return image, args
}
