package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"atoll/bundle"
)

// qemuImg runs qemu-img in a folder of its own, and returns where that is.
func qemuImg(t *testing.T, commands ...string) string {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), bytes.Repeat([]byte("a secret of the host\n"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		cmd := exec.Command("qemu-img", strings.Fields(c)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("qemu-img %s: %v\n%s", c, err, out)
		}
	}
	return dir
}

func TestImagesOfOtherFiles(t *testing.T) {
	dir := qemuImg(t,
		"create -q -f qcow2 plain 1M",
		"create -q -f qcow2 -o compat=0.10 old 1M",
		"create -q -f qcow2 -F raw -b secret evil",
		"create -q -f qcow2 -F raw -b secret -o compat=0.10 evilold",
		"create -q -f qcow2 -F raw -u -b json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"secret\"}} json 1M",
		"create -q -f qcow2 -F raw -u -b nbd://192.0.2.1/x network 1M",
		"create -q -f qcow2 -o data_file=data,data_file_raw=on external 1M",
	)
	for name, want := range map[string]string{
		"plain": "", "old": "",
		"evil":     `overlay of "secret"`,
		"evilold":  `overlay of "secret"`,
		"json":     `overlay of "json:`,
		"network":  `overlay of "nbd:`,
		"external": "data are in another file",
	} {
		format, size, err := inspect(filepath.Join(dir, name))
		if want == "" && (format != "qcow2" || size != 1<<20 || err != nil) {
			t.Errorf("%s: inspect = %s, %d, %v", name, format, size, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: inspect = %s, %d, %v; want %q", name, format, size, err, want)
		}
	}
}

func TestOverlaysOfOtherFiles(t *testing.T) {
	image, _ := fake(t, "ready")
	abs, err := filepath.Abs(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(abs, abs+".link"); err != nil {
		t.Fatal(err)
	}
	dir := qemuImg(t, "create -q -f qcow2 plain 1M", "create -q -f qcow2 -F raw -b secret evil",
		"create -q -f qcow2 -o data_file=data external 1M")
	for name, args := range map[string][]string{
		"relative": {"-F", "raw", "-b", filepath.Base(abs), filepath.Join(filepath.Dir(abs), "relative"), "4M"},
		"format":   {"-F", "qcow2", "-u", "-b", abs, filepath.Join(dir, "format"), "4M"},
		"none":     {"-F", "raw", "-u", "-b", abs, filepath.Join(dir, "none"), "4M"},
		"ours":     {"-F", "raw", "-b", abs + ".link", filepath.Join(dir, "ours"), "4M"},
	} {
		if out, err := exec.Command("qemu-img", append([]string{"create", "-q", "-f", "qcow2"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "none"))
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, binary.BigEndian.AppendUint32(nil, extensionBackingFormat), []byte{1, 2, 3, 4}, 1)
	if err := os.WriteFile(filepath.Join(dir, "none"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"plain": "is no overlay", "evil": `is an overlay of "secret"`, "external": "data in another file",
		filepath.Join(filepath.Dir(abs), "relative"): "is an overlay of", "format": `for "qcow2", which is raw`, "none": `for "", which is raw`,
		"secret": "is no qcow2 file", "ours": "",
	} {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		_, err := Boot(t.Context(), image, &Options{Overlay: path})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, try := range []struct {
		image string
		o     *Options
	}{{pipe, nil}, {image, &Options{Overlay: pipe}}} {
		_, err := Boot(t.Context(), try.image, try.o)
		var odd *bundle.NotRegularError
		if !errors.As(err, &odd) {
			t.Errorf("a pipe for image or overlay: %v", err)
		}
	}
}

// TestRelativeOverlay: QEMU runs in another folder, and has its own idea of colons.
func TestRelativeOverlay(t *testing.T) {
	image, args := fake(t, "ready")
	abs, err := filepath.Abs(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if _, err := Boot(t.Context(), abs, &Options{Overlay: "nbd:o.qcow2"}); err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(args)
	if want := `"filename":"` + filepath.Join(here, "nbd:o.qcow2"); err != nil || !strings.Contains(string(data), want) {
		t.Errorf("QEMU's arguments lack %q (%v):\n%s", want, err, data)
	}
}

func FuzzQcow2(f *testing.F) {
	head := func(change func([]byte)) {
		b := make([]byte, 160)
		copy(b, qcow2Magic)
		binary.BigEndian.PutUint32(b[4:], 3)
		binary.BigEndian.PutUint32(b[20:], 16)
		binary.BigEndian.PutUint64(b[24:], 1<<30)
		binary.BigEndian.PutUint32(b[100:], 104)
		change(b)
		f.Add(b)
	}
	head(func([]byte) {})
	head(func(b []byte) { binary.BigEndian.PutUint64(b[72:], externalData) })
	head(func(b []byte) {
		binary.BigEndian.PutUint64(b[8:], 128)
		binary.BigEndian.PutUint32(b[16:], 11)
		copy(b[128:], "/etc/shadow")
		binary.BigEndian.PutUint32(b[104:], extensionBackingFormat)
		binary.BigEndian.PutUint32(b[108:], 3)
		copy(b[112:], "raw")
	})
	head(func(b []byte) { // an endless extension
		binary.BigEndian.PutUint64(b[8:], 1<<16)
		binary.BigEndian.PutUint32(b[16:], 1)
		binary.BigEndian.PutUint32(b[104:], 1)
		binary.BigEndian.PutUint32(b[108:], 1<<32-1)
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := readQcow2(bytes.NewReader(data))
		if err != nil {
			return
		}
		if q.size <= 0 || q.size > maxDiskSize || len(q.backing) > maxBacking || len(q.backingFormat) > maxExtension {
			t.Errorf("read %+v", q)
		}
		if len(data) >= 16 && binary.BigEndian.Uint64(data[8:]) != 0 && q.backing == "" {
			t.Error("a backing file is overlooked")
		}
	})
}
