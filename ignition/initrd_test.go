package ignition

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cavaliergopher/cpio"
)

func TestInitrd(t *testing.T) {
	img, err := Initrd([]byte(`{"ignition":{"version":"3.3.0"}}`), epoch)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Initrd([]byte(`{"ignition":{"version":"3.3.0"}}`), epoch); err != nil || !bytes.Equal(img, again) {
		t.Errorf("packed twice, bytes differ (%v)", err)
	}
	zip, err := gzip.NewReader(bytes.NewReader(img))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]cpio.FileMode{"usr/lib/ignition/user.ign": cpio.TypeReg | 0o600, "usr/bin/setfiles": cpio.TypeReg | 0o755}
	for _, f := range initramfs {
		want[f.name] = f.mode
	}
	all := len(want)
	dropIns := map[string]bool{} // of two with one name systemd reads one
	for name := range want {
		if strings.HasSuffix(name, ".conf") && dropIns[filepath.Base(name)] {
			t.Errorf("two drop-ins are named %s", filepath.Base(name))
		}
		dropIns[filepath.Base(name)] = true
	}
	r := cpio.NewReader(zip)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != want[h.Name] || !h.ModTime.Equal(epoch) {
			t.Errorf("%s: mode %v, time %v", h.Name, h.Mode, h.ModTime)
		}
		delete(want, h.Name)
	}
	if len(want) > 0 {
		t.Errorf("initramfs lacks %v", want)
	}
	foreign(t, img, all)
}

// TestMend runs the script over a root where every step of making a user was cut off.
func TestMend(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	root := t.TempDir()
	for name, text := range map[string]string{
		"passwd":      "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/nonexistent:/x\nann:x:1000:1000::/home/ann:/bin/bash\nbob:x:1001:1001::/home/bob:/bin/bash\n",
		"shadow":      "root:*:1:0:99999:7:::\nbob:!:1:0:99999:7:::\n",
		"group":       "root:x:0:\nbob:x:1001:\n",
		"passwd.lock": "1", ".ignition-result.json": "",
	} {
		if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script, err := files.ReadFile("files/initramfs/mend")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second run has nothing left to do
		out, err := exec.Command("sh", "-c", strings.Replace(string(script), "root=/sysroot", "root="+root, 1)).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for name, want := range map[string]string{
		"shadow": "root:*:1:0:99999:7:::\nbob:!:1:0:99999:7:::\nann:!::0:99999:7:::\n",
		"group":  "root:x:0:\nbob:x:1001:\nann:x:1000:\n",
	} {
		if got, err := os.ReadFile(filepath.Join(root, "etc", name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v, want %q", name, got, err, want)
		}
	}
	for name, uid := range map[string]uint32{"home/ann": 1000, "home/bob": 1001} {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != uid || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	for _, name := range []string{"etc/passwd.lock", "etc/.ignition-result.json", "nonexistent", "root"} {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
}

// foreign lets the real cpio list the archive.
func foreign(t *testing.T, img []byte, entries int) {
	t.Helper()
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Log("cpio is not installed (package cpio): only the library judges")
		return
	}
	cmd := exec.Command("sh", "-c", "gzip -dc | cpio -tv --quiet")
	cmd.Stdin = bytes.NewReader(img)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "\n") != entries || !strings.Contains(string(out), "-rw-------") {
		t.Errorf("cpio: %v\n%s", err, out)
	}
}

// TestReport runs the script over what Ignition logs when a command of its fails: the
// console is told why, and no hash.
func TestReport(t *testing.T) {
	script, err := files.ReadFile("files/initramfs/report")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	log, console := filepath.Join(dir, "log"), filepath.Join(dir, "console")
	for name, text := range map[string]string{
		log: `INFO     : files: createUsers: op(1): executing: "useradd" "--root" "/sysroot" "--password" "$6$salt$hash" "ann"
CRITICAL : files: createUsers: op(1): [failed]   creating or modifying user "ann": exit status 1: Cmd: "useradd" "--root" "/sysroot" "--password" "$6$salt$ha\"s\\h" "ann" Stdout: "" Stderr: "useradd: no room"
files failed
Full config:
{"passwd": {"users": [{"name": "ann", "passwordHash": "$6$salt$hash"}]}}
`,
		// The stages that log to syslog.
		filepath.Join(dir, "journalctl"): "#!/bin/sh\necho 'disks: failed: no such disk'\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for result, want := range map[string]string{
		"success": "",
		"exit-code": `atoll: files: createUsers: op(1): [failed]   creating or modifying user "ann": exit status 1: Cmd: "useradd" "--root" "/sysroot" "--password" "…" "ann" Stdout: "" Stderr: "useradd: no room"
atoll: disks: failed: no such disk
`,
	} {
		if err := os.WriteFile(console, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", string(script), "report", log, console)
		cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "SERVICE_RESULT=" + result}
		out, err := cmd.CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Fatalf("%v\n%s", err, out)
		}
		if got, err := os.ReadFile(console); err != nil || string(got) != want {
			t.Errorf("%s: console has %q, %v, want %q", result, got, err, want)
		}
	}
}
