package payload

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// binaryWith is a fake program with one helper appended, as the build makes it.
func binaryWith(t *testing.T, name, text string) []byte {
	t.Helper()
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(z)
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := tw.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(packed.Bytes())
	out := append([]byte("ELF"), packed.Bytes()...)
	out = binary.BigEndian.AppendUint64(out, uint64(packed.Len()))
	return append(append(out, sum[:]...), Magic...)
}

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	exe, data := filepath.Join(dir, "k3s"), filepath.Join(dir, "data")
	good := binaryWith(t, "bin/runc", "hello")
	if err := os.WriteFile(exe, good, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing is to do
		bin, err := Unpack(exe, data)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(bin, "runc")); err != nil || string(got) != "hello" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(data, "current/bin/runc")); err != nil {
		t.Error(err)
	}
	bad := bytes.Clone(good)
	bad[10] ^= 1
	for name, content := range map[string][]byte{"damaged": bad, "bare": []byte("ELF with nothing after it, long enough for a trailer to be read")} {
		if err := os.WriteFile(exe, content, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := Unpack(exe, filepath.Join(dir, name)); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s: something was unpacked", name)
		}
	}
}

func TestLink(t *testing.T) {
	dir := t.TempDir()
	cni := filepath.Join(dir, "cni")
	for _, hash := range []string{"old", "new"} { // as after an upgrade
		bin := filepath.Join(dir, hash, "bin")
		if err := os.MkdirAll(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, "bridge"), []byte(hash), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := Link(cni, bin, "bridge"); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(cni, "bridge")); err != nil || string(got) != hash {
			t.Errorf("got %q, %v, want %q", got, err, hash)
		}
		other := filepath.Join(cni, "istio-cni")
		if hash == "old" {
			if err := os.WriteFile(other, []byte("of somebody else"), 0o755); err != nil {
				t.Fatal(err)
			}
		} else if _, err := os.Stat(other); err != nil {
			t.Error(err)
		}
	}
}
