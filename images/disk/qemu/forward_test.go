package qemu

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"atoll/bundle"
)

func TestParseForward(t *testing.T) {
	for text, want := range map[string]string{
		"8443:443":           "127.0.0.1:8443:443",
		"0:22":               "127.0.0.1:0:22",
		":22":                "127.0.0.1:0:22",
		"localhost:80:80":    "127.0.0.1:80:80",
		"0.0.0.0:8443:443":   "0.0.0.0:8443:443",
		"192.0.2.1::65535":   "192.0.2.1:0:65535",
		"443":                `"443" is not [HOST:]PORT:GUESTPORT`,
		"":                   `"" is not [HOST:]PORT:GUESTPORT`,
		"::1:8443:443":       `is not [HOST:]PORT:GUESTPORT`,
		"[::1]:8443:443":     `is not [HOST:]PORT:GUESTPORT`,
		":8443:443":          `"" is not an IPv4 address`,
		"node:8443:443":      `"node" is not an IPv4 address`,
		"1.2.3.4,x:1:2":      `is not an IPv4 address`,
		"8443:0":             `"0" is not a port of the guest`,
		"8443:":              `"" is not a port of the guest`,
		"8443:https":         `"https" is not a port of the guest`,
		"65536:443":          `"65536" is not a port`,
		"-1:443":             `"-1" is not a port`,
		"+1:443":             `"+1" is not a port`,
		"1:443,hostfwd=:2-1": `"1" is not an IPv4 address`,
		"1:443,restrict=off": `is not a port of the guest`,
	} {
		f, err := ParseForward(text)
		if got := f.String(); err == nil && got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func FuzzParseForward(f *testing.F) {
	for _, seed := range []string{"8443:443", "localhost::22", "0.0.0.0:0:1", "a:b:c", ":::", "1:2,x=y"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fwd, err := ParseForward(text)
		if err != nil {
			return
		}
		if again, err := ParseForward(fwd.String()); err != nil || again != fwd {
			t.Errorf("%q is %s, which is %v, %v", text, fwd, again, err)
		}
		if words := nic(false, []Forward{fwd}); strings.Count(words, ",") != 5 || strings.Count(words, ":") != 8 {
			t.Errorf("%q makes QEMU's %q", text, words)
		}
	})
}

func TestNIC(t *testing.T) {
	forwards := []Forward{{netip.MustParseAddrPort("127.0.0.1:8443"), 443}, {netip.MustParseAddrPort("0.0.0.0:8080"), 80}}
	for _, tc := range []struct {
		network  bool
		forwards []Forward
		want     string
	}{
		{false, nil, "none"},
		{true, nil, "user,model=virtio-net-pci,mac=02:61:74:6f:6c:6c"},
		{false, forwards, "user,model=virtio-net-pci,mac=02:61:74:6f:6c:6c,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:8443-:443,hostfwd=tcp:0.0.0.0:8080-:80"},
		{true, forwards[:1], "user,model=virtio-net-pci,mac=02:61:74:6f:6c:6c,hostfwd=tcp:127.0.0.1:8443-:443"},
	} {
		if got := nic(tc.network, tc.forwards); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}

// TestForward checks that the ports that are told are those that QEMU gets, and can have.
func TestForward(t *testing.T) {
	image, args := fake(t, "ready")
	var told []Forward
	forwards := []Forward{{netip.MustParseAddrPort("127.0.0.1:0"), 443}, {netip.MustParseAddrPort("127.0.0.1:0"), 22}}
	_, err := Boot(t.Context(), image, &Options{Forwards: forwards, OnForward: func(f Forward) { told = append(told, f) }})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(args)
	if err != nil {
		t.Fatal(err)
	}
	if len(told) != 2 || told[0].Host.Port() == 0 || told[0].Host == told[1].Host || !bytes.Contains(data, []byte("\n-nic\n"+nic(false, told)+"\n")) {
		t.Errorf("told %v; QEMU's arguments are\n%s", told, data)
	}
}

func TestForwardTaken(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for host, want := range map[string]error{l.Addr().String(): syscall.EADDRINUSE, "192.0.2.7:0": syscall.EADDRNOTAVAIL} {
		image, args := fake(t, "ready")
		overlay := filepath.Join(t.TempDir(), "o.qcow2")
		_, err := Boot(t.Context(), image, &Options{Overlay: overlay, Forwards: []Forward{{netip.MustParseAddrPort(host), 443}}})
		var port *PortError
		if !errors.As(err, &port) || !errors.Is(port.Err, want) {
			t.Errorf("%s: got %v", host, err)
		}
		for _, path := range []string{args, overlay} {
			if _, err := os.Stat(path); err == nil {
				t.Errorf("%s: %s was made", host, filepath.Base(path))
			}
		}
	}
}

// TestUntil checks what ends a guest that is ready and may run on.
func TestUntil(t *testing.T) {
	for _, tc := range []struct {
		guest    string
		powerOff bool
		close    bool // Until
		want     string
	}{
		{guest: "talks", close: true},
		{guest: "poweroff", close: true, powerOff: true},
		{guest: "unclean", close: true, want: "QEMU ended badly after the stack was ready: exit status 3"},
		{guest: "at once"},
		{guest: "ready, breaks", want: "QEMU ended badly after the stack was ready: exit status 1\n  out of memory"},
		{guest: "ready, full", want: "disk of the host is full"},
		{guest: "ready, panic", want: "kernel panic"},
	} {
		t.Run(tc.guest, func(t *testing.T) {
			image, args := fake(t, tc.guest)
			until, statuses := make(chan struct{}), 0
			var ready *Result
			o := Options{PowerOff: tc.powerOff, Timeout: time.Hour, Until: until}
			o.OnReady = func(res *Result) error {
				ready = res
				return os.WriteFile(args+".ready", nil, 0o600)
			}
			o.OnStatus = func(s bundle.Status) {
				// "talks" has more to say after it is ready.
				if statuses++; tc.close && (statuses == 9 || tc.guest != "talks") {
					close(until)
				}
			}
			res, err := Boot(t.Context(), image, &o)
			if ready == nil || ready != res || res.Duration <= 0 {
				t.Errorf("result is %+v, and was %+v when the guest was ready", res, ready)
			}
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			checkGone(t, args)
		})
	}
}

// TestUntilCut checks that the end of the context cuts off a guest that does not power off,
// and that a time-out counts only until it is ready.
func TestUntilCut(t *testing.T) {
	image, args := fake(t, "deaf")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	until := make(chan struct{})
	o := Options{PowerOff: true, Timeout: time.Second, Until: until, OnReady: func(*Result) error {
		time.AfterFunc(2*time.Second, func() { close(until); cancel() })
		return nil
	}}
	start := time.Now()
	if _, err := Boot(ctx, image, &o); !errors.Is(err, context.Canceled) || time.Since(start) < 2*time.Second {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
	checkGone(t, args)
}

// TestGroup checks that Ctrl-C in a terminal, which is for all of the group, is not for QEMU.
func TestGroup(t *testing.T) {
	image, args := fake(t, "deaf")
	_, err := Boot(t.Context(), image, &Options{Until: make(chan struct{}), OnReady: func(*Result) error {
		data, err := os.ReadFile(args)
		if err != nil {
			return err
		}
		pid, _, _ := strings.Cut(string(data), "\n")
		stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		if err != nil {
			return err
		}
		// After the name, in parentheses: state, parent, group.
		if f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); f[2] != pid {
			t.Errorf("QEMU %s is in group %s", pid, f[2])
		}
		return context.Canceled
	}})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOnReadyFails(t *testing.T) {
	image, args := fake(t, "deaf")
	broken := errors.New("stdout is gone")
	_, err := Boot(t.Context(), image, &Options{Until: make(chan struct{}), OnReady: func(*Result) error { return broken }})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	checkGone(t, args)
}
