package bundle

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// umask sets the umask for one test; no other may run beside it.
func umask(t *testing.T, mask int) {
	t.Helper()
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func TestWriteFileKeepsUmask(t *testing.T) {
	text := func(f *os.File) error { _, err := f.WriteString("new"); return err }
	for _, test := range []struct {
		name  string
		mask  int
		old   fs.FileMode // of the file that is replaced, if there is one
		write func(string, func(*os.File) error) error
		want  fs.FileMode
	}{
		{"a umask for all", 0o022, 0, WriteFile, 0o644},
		{"a umask for the group", 0o002, 0, WriteFile, 0o664},
		{"a umask for nobody else", 0o077, 0, WriteFile, 0o600},
		{"what was closed stays closed", 0o022, 0o600, WriteFile, 0o600},
		{"what was open is closed", 0o077, 0o644, WriteFile, 0o600},
		{"a secret", 0o022, 0, WriteSecret, 0o600},
		{"a secret that was open", 0o022, 0o644, WriteSecret, 0o600},
	} {
		t.Run(test.name, func(t *testing.T) {
			umask(t, test.mask)
			path := filepath.Join(t.TempDir(), "file")
			if test.old != 0 {
				if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, test.old)); err != nil {
					t.Fatal(err)
				}
			}
			err := test.write(path, func(f *os.File) error {
				if got := mode(t, f.Name()); got != test.want {
					t.Errorf("while it is written its mode is %v, want %v", got, test.want)
				}
				return text(f)
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := mode(t, path); got != test.want {
				t.Errorf("mode is %v, want %v", got, test.want)
			}
		})
	}
}

func TestStoreKeepsUmask(t *testing.T) {
	umask(t, 0o077)
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.PutBytes(context.Background(), []byte("layer"))
	if err != nil {
		t.Fatal(err)
	}
	if got := mode(t, s.Path(h)); got != 0o600 {
		t.Errorf("a blob's mode is %v under umask 077", got)
	}
}

func TestWriteFileReplacesFilesOnly(t *testing.T) {
	paths := odd(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	paths["a symbolic link to "+file] = file + ".link"
	paths["a symbolic link to nowhere"] = file + ".dangling"
	if err := errors.Join(os.Symlink(file, file+".link"), os.Symlink("nowhere", file+".dangling")); err != nil {
		t.Fatal(err)
	}
	delete(paths, "link")
	for what, path := range paths {
		before := mode(t, path)
		err := WriteFile(path, func(*os.File) error {
			t.Errorf("%s: something is written", what)
			return nil
		})
		var odd *NotRegularError
		if !errors.As(err, &odd) || !strings.Contains(err.Error(), what) {
			t.Errorf("writing to %s: %v", what, err)
		}
		if after := mode(t, path); after != before {
			t.Errorf("%s became %v", what, after)
		}
	}
	// It is looked at again when all is written.
	err := WriteFile(file, func(*os.File) error { return errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o600)) })
	var odd *NotRegularError
	if !errors.As(err, &odd) || mode(t, file)&fs.ModeNamedPipe == 0 {
		t.Errorf("what became a pipe meanwhile: %v, now %v", err, mode(t, file))
	}
}

func TestCreateLog(t *testing.T) {
	umask(t, 0o027)
	paths := odd(t)
	for _, what := range []string{"a socket", "a folder", "a block device"} {
		if paths[what] == "" {
			continue
		}
		_, err := CreateLog(paths[what])
		var odd *NotRegularError
		if !errors.As(err, &odd) {
			t.Errorf("logging to %s: %v", what, err)
		}
	}
	if _, err := CreateLog(paths["a pipe"]); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("logging to a pipe that nobody reads: %v", err)
	}
	reader, err := os.OpenFile(paths["a pipe"], os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("a longer log"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{paths["a pipe"], os.DevNull, file, file + ".new"} {
		f, err := CreateLog(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("line"); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "line" {
		t.Errorf("the log holds %q, %v", data, err)
	}
	if got := mode(t, file+".new"); got != 0o640 {
		t.Errorf("a log's mode is %v under umask 027", got)
	}
}
