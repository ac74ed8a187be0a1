package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"atoll/bundle"
	"atoll/images/disk"
)

func TestBootReady(t *testing.T) {
	image, _ := fake(t, "ready")
	var told []string
	var console bytes.Buffer
	res, err := Boot(t.Context(), image, &Options{Console: &console, OnStatus: func(s bundle.Status) { told = append(told, s.State) }})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(told) != "[running ready]" {
		t.Errorf("told %v, want each change once", told)
	}
	if res.Status.State != bundle.StateReady || len(res.Status.Phases) != 3 || res.Start <= 0 || res.Duration < res.Start || res.Accel != "tcg" {
		t.Errorf("result is %+v", res)
	}
}

func TestBootGuests(t *testing.T) {
	for _, tc := range []struct {
		guest string
		want  []string // nothing: ready
		not   string
	}{
		{guest: "at once"}, {guest: "at once"}, {guest: "at once"}, {guest: "at once"}, // it is a race
		{guest: "halves"},
		{guest: "failed", want: []string{"phase web: image web cannot be pulled", "the log's tail"}, not: "\x1b"},
		{guest: "unclean", want: []string{"QEMU ended badly after the stack was ready: exit status 3"}},
		{guest: "long", want: []string{"status of the guest is unreadable: line is longer than 1048576 bytes"}},
		{guest: "panic", want: []string{"kernel panic", "not syncing: no init", "---[ end"}},
		{guest: "emergency", want: []string{"stopped in emergency mode", "no such user"}},
		{guest: "ends", want: []string{"powered off or restarted before the stack was ready; it was at phase k3s (waiting for the API)", "reboot: Power down"}},
		{guest: "breaks", want: []string{"QEMU ended with exit status 1", "could not load firmware"}},
		{guest: "full", want: []string{"disk of the host is full"}},
	} {
		t.Run(tc.guest, func(t *testing.T) {
			image, _ := fake(t, tc.guest)
			res, err := Boot(t.Context(), image, nil)
			if res == nil {
				t.Fatal("no result", err)
			}
			if len(tc.want) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var guest *GuestError
			if !errors.As(err, &guest) {
				t.Fatalf("got %v, want a GuestError", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q:\n%v", want, err)
				}
			}
			if tc.not != "" && strings.Contains(err.Error(), tc.not) {
				t.Errorf("error has %q: %q", tc.not, err)
			}
			if tc.guest == "full" && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%v does not wrap ENOSPC", err)
			}
		})
	}
}

func TestBootTimeout(t *testing.T) {
	for guest, want := range map[string]string{"silent": "it was at phase k3s (waiting for the API)", "mute": "the node told no status"} {
		image, args := fake(t, guest)
		_, err := Boot(t.Context(), image, &Options{Timeout: time.Second})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "stack was not ready in 1s; "+want) {
			t.Errorf("%s: got %v", guest, err)
		}
		checkGone(t, args)
	}
}

func TestBootCancel(t *testing.T) {
	image, args := fake(t, "silent")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := Boot(ctx, image, &Options{OnStatus: func(bundle.Status) { cancel() }})
	var guest *GuestError
	if !errors.Is(err, context.Canceled) || errors.As(err, &guest) {
		t.Errorf("got %v, want only that it was cancelled", err)
	}
	checkGone(t, args)
}

// TestKilled checks that QEMU does not outlive a program that had no chance to end it.
func TestKilled(t *testing.T) {
	_, args := fake(t, "silent")
	tmp := t.TempDir() // what a killed program leaves behind is not to be checked
	booter := exec.Command(filepath.Join(os.Getenv("PATH"), "booter"))
	booter.Env = append(os.Environ(), "TMPDIR="+tmp)
	if err := booter.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if data, err := os.ReadFile(args); err == nil && len(data) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("QEMU was not started")
		}
	}
	if err := booter.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	booter.Wait()
	checkGone(t, args)
}

// checkGone checks that the fake QEMU which wrote the file runs no more.
func checkGone(t *testing.T, args string) {
	t.Helper()
	data, err := os.ReadFile(args)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.SplitN(string(data), "\n", 2)[0])
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("QEMU still runs (%d)", pid)
	syscall.Kill(pid, syscall.SIGKILL)
}

func TestPowerOff(t *testing.T) {
	image, args := fake(t, "poweroff")
	overlay := filepath.Join(t.TempDir(), "overlay.qcow2")
	if _, err := Boot(t.Context(), image, &Options{Overlay: overlay, PowerOff: true, DiskSize: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(args)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\n-nic\nnone\n", "-no-reboot", `"filename":"` + overlay, `"no-flush":false`, "name=" + bundle.StatusPort, "erms=off"} {
		if !strings.Contains(string(data), want) {
			t.Errorf("QEMU's arguments lack %q:\n%s", want, data)
		}
	}
	if got := virtualSize(t, overlay); got != 64<<20 {
		t.Errorf("disk has %d bytes, want 64 MiB", got)
	}
	before, err := os.Stat(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Boot(t.Context(), image, &Options{Overlay: overlay, PowerOff: true}); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(overlay); err != nil || !os.SameFile(before, after) {
		t.Error("second boot made the overlay anew")
	}
}

func virtualSize(t *testing.T, path string) int64 {
	t.Helper()
	out, err := exec.Command("qemu-img", "info", "--output=json", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	return info.Size
}

func TestDefaultSize(t *testing.T) {
	image, _ := fake(t, "ready")
	overlay := filepath.Join(t.TempDir(), "overlay.qcow2")
	if _, err := Boot(t.Context(), image, &Options{Overlay: overlay}); err != nil {
		t.Fatal(err)
	}
	if got := virtualSize(t, overlay); got != 1<<20+defaultGrowth {
		t.Errorf("disk has %d bytes", got)
	}
}

func TestConsoleIsBounded(t *testing.T) {
	image, _ := fake(t, "flood")
	res, err := Boot(t.Context(), image, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(res.Console, "\n")
	if len(res.Console) > tailLines+1 || len(text) > (tailLines+1)*lineBytes || !strings.HasSuffix(text, "line 9") || strings.Contains(text, "\x1b") {
		t.Errorf("tail has %d lines, %d bytes, ends %q", len(res.Console), len(text), text[max(0, len(text)-20):])
	}
}

func TestAccel(t *testing.T) {
	if !readable("/dev/kvm") {
		t.Skip("there is no /dev/kvm")
	}
	for how, want := range map[string]string{"works": "kvm", "": "tcg"} {
		fake(t, "mute")
		t.Setenv("FAKE_KVM", how)
		tools, err := findTools()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tools.accel(t.Context(), t.TempDir(), (*Options)(nil).withDefaults().Log); got != want || err != nil {
			t.Errorf("KVM %q: got %s, %v, want %s", how, got, err, want)
		}
	}
}

func TestBadInput(t *testing.T) {
	image, _ := fake(t, "ready")
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tc := range []struct {
		image, want string
		o           *Options
	}{
		{filepath.Join(dir, "none"), "no such file", nil},
		{dir, "not a regular file", nil},
		{write("short", []byte("x")), "too short", nil},
		{write("zst", append([]byte{0x28, 0xb5, 0x2f, 0xfd}, make([]byte, 100)...)), "decompress it first", nil},
		{write("bad", append([]byte("QFI\xfb"), bytes.Repeat([]byte{0xff}, 100)...)), "version 4294967295, which is not known", nil},
		{image, "is smaller than the image", &Options{DiskSize: 1000}},
		{image, "making overlay", &Options{Overlay: filepath.Join(dir, "no/folder/o.qcow2")}},
	} {
		if _, err := Boot(t.Context(), tc.image, tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", filepath.Base(tc.image), err, tc.want)
		}
	}
	t.Setenv("PATH", dir)
	var missing *disk.MissingToolError
	if _, err := Boot(t.Context(), image, nil); !errors.As(err, &missing) || missing.Package != "qemu-system-x86" {
		t.Errorf("without QEMU: got %v", err)
	}
}

// TestRealQEMU boots a disk that holds nothing: QEMU, firmware, serial console and the
// end of it are the real ones.
func TestRealQEMU(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while without KVM")
	}
	if _, err := findTools(); err != nil {
		t.Skip(err)
	}
	image := filepath.Join(t.TempDir(), "empty.raw")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	res, err := Boot(ctx, image, &Options{MemoryMiB: 512})
	var guest *GuestError
	if !errors.As(err, &guest) || !strings.Contains(guest.Reason, "firmware found nothing to boot") {
		t.Errorf("got %v", err)
	}
	t.Logf("%s, %v", res.Accel, res.Duration)
}

func TestJUnit(t *testing.T) {
	res := &Result{Status: running, Start: 45 * time.Second, Duration: time.Minute, Console: []string{"last words <&>"}}
	for _, tc := range []struct {
		name  string
		res   *Result
		err   error
		cases int
		blame string
	}{
		{"ready", &Result{Status: ready, Duration: time.Minute}, nil, 5, ""},
		{"failed", res, &GuestError{Reason: "no <image>", Log: []string{"a \x00 b"}}, 4, "k3s"},
		{"silent", &Result{Duration: time.Minute}, errors.New("timeout"), 1, "start"},
		{"never started", nil, errors.New("no qemu"), 1, "start"},
		{"unclean end", &Result{Status: ready}, errors.New("ended badly"), 5, "ready"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var buf bytes.Buffer
			if err := WriteJUnit(&buf, "lab.raw", tc.res, tc.err); err != nil {
				t.Fatal(err)
			}
			var s junitSuite
			if err := xml.Unmarshal(buf.Bytes(), &s); err != nil {
				t.Fatal(err)
			}
			var blamed string
			for _, c := range s.Cases {
				if c.Failure != nil {
					blamed = c.Name
				}
			}
			if s.Tests != tc.cases || len(s.Cases) != tc.cases || blamed != tc.blame || (s.Failures == 1) != (tc.err != nil) {
				t.Errorf("got %d cases, blamed %q:\n%s", len(s.Cases), blamed, buf.String())
			}
		})
	}
}
