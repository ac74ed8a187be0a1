package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"atoll/bundle"
	"atoll/images/disk/qemu"
)

// fakeQEMU stands in for QEMU in scripts: its guest is ready at once, and its arguments are
// in the file "qemu-args". It does as it is told by the environment's GUEST: "deaf" to a
// power button, or nothing.
func fakeQEMU() {
	if slices.Contains(os.Args, "kvm") {
		os.Exit(1)
	}
	if err := os.WriteFile(os.Getenv("WORK")+"/qemu-args", []byte(strings.Join(os.Args, "\n")), 0o600); err != nil {
		os.Exit(1)
	}
	status, qmp := os.NewFile(3, "status"), os.NewFile(4, "qmp")
	json.NewEncoder(status).Encode(bundle.Status{Appliance: "box", State: bundle.StateReady})
	for commands := bufio.NewScanner(qmp); commands.Scan(); {
		switch text := commands.Text(); {
		case strings.Contains(text, "system_powerdown") && os.Getenv("GUEST") == "deaf":
			fmt.Println("power button is ignored")
		case strings.Contains(text, "system_powerdown"), strings.Contains(text, `"quit"`):
			os.WriteFile(os.Getenv("WORK")+"/qemu-end", []byte(text), 0o600)
			os.Exit(0)
		}
	}
}

func TestHintForward(t *testing.T) {
	for err, want := range map[error]string{
		syscall.EADDRINUSE:    "another program has port 443; name another, or 0 for a free one: --forward 127.0.0.1:0:443",
		syscall.EACCES:        "ports below 1024 are root's; name another: --forward 127.0.0.1:8443:443",
		syscall.EADDRNOTAVAIL: "127.0.0.1 is no address of this machine; without one it is 127.0.0.1",
	} {
		p := &qemu.PortError{Forward: qemu.Forward{Host: netip.MustParseAddrPort("127.0.0.1:443"), GuestPort: 443}, Err: err}
		if got := hints(hintForward(fmt.Errorf("booting: %w", p))); len(got) != 1 || got[0] != want {
			t.Errorf("%v: %q", err, got)
		}
	}
}

// cmdUntil is the script command "until TEXT FILE": it waits until the file has the text.
func cmdUntil(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		data, err := os.ReadFile(ts.MkAbs(args[1]))
		if err == nil && strings.Contains(string(data), args[0]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s never got %q: %v\n%s", args[1], args[0], err, data)
		}
	}
}
