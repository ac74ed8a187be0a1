package bundle

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// odd makes one of everything that is no regular file, by what it is called.
func odd(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Symlink(at("pipe"), at("link")); err != nil {
		t.Fatal(err)
	}
	made := map[string]string{
		"a pipe": at("pipe"), "a socket": at("socket"), "a folder": dir, "a character device": os.DevNull, "link": at("link"),
	}
	if syscall.Mknod(at("disk"), syscall.S_IFBLK|0o600, 7<<8|250) == nil { // root alone may
		made["a block device"] = at("disk")
	}
	return made
}

func TestOpenRegular(t *testing.T) {
	for what, path := range odd(t) {
		if what == "link" {
			what = "a pipe" // that is where it leads
		}
		_, err := OpenRegular(path)
		var odd *NotRegularError
		if !errors.As(err, &odd) || !strings.Contains(err.Error(), what) {
			t.Errorf("opening %s: %v", what, err)
		}
	}
	if _, err := OpenRegular(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening what is not there: %v", err)
	}
}

func TestReadRegular(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadRegular(link, 5); err != nil || string(data) != "12345" {
		t.Errorf("ReadRegular = %q, %v", data, err)
	}
	if _, err := ReadRegular(path, 4); err == nil || !strings.Contains(err.Error(), "larger than 4 bytes") {
		t.Errorf("a file of 5 bytes is read with a limit of 4: %v", err)
	}
	if _, err := ReadRegular("/proc/self/mem", 4); err == nil {
		t.Error("no error from a file that cannot be read")
	}
}
