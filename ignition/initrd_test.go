package ignition

import (
	"bytes"
	"compress/gzip"
	"io"
	"os/exec"
	"strings"
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
	want := map[string]cpio.FileMode{"usr/lib/ignition": cpio.TypeDir | 0o755, "usr/lib/ignition/user.ign": cpio.TypeReg | 0o600, "usr/bin/setfiles": cpio.TypeReg | 0o755}
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
	foreign(t, img)
}

// foreign lets the real cpio list the archive.
func foreign(t *testing.T, img []byte) {
	t.Helper()
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Log("cpio is not installed (package cpio): only the library judges")
		return
	}
	cmd := exec.Command("sh", "-c", "gzip -dc | cpio -tv --quiet")
	cmd.Stdin = bytes.NewReader(img)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "\n") != 3 || !strings.Contains(string(out), "-rw-------") {
		t.Errorf("cpio: %v\n%s", err, out)
	}
}
