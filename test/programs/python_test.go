package main

import (
	"archive/tar"
	"archive/zip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atoll/bundle"
)

// TestPython: pip puts what a list names into a layer, without tests and without programs for
// this machine's interpreter; what has another hash than the list says leaves the image out.
func TestPython(t *testing.T) {
	if err := exec.Command(pythonProgram, "-m", "pip", "--version").Run(); err != nil {
		t.Skipf("no %s with pip: %v", pythonProgram, err)
	}
	dir := t.TempDir()
	t.Setenv("PIP_NO_INDEX", "1")
	t.Setenv("PIP_FIND_LINKS", dir)
	list := filepath.Join(dir, "requirements.txt")
	requirement := "lab==1.0 --hash=" + bundle.DigestOf(writeWheel(t, filepath.Join(dir, "lab-1.0-py3-none-any.whl"))).String() + "\n"
	write := func(text string) string {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		key, err := requirementsKey(list)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	b, err := newBuilder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	first := write(requirement)
	l := newLayer()
	if err := b.python(t.Context(), l, list); err != nil {
		t.Fatal(err)
	}
	if err := l.w.Close(); err != nil {
		t.Fatal(err)
	}
	var files []string
	for r := tar.NewReader(&l.data); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg && !strings.Contains(h.Name, ".dist-info/") {
			files = append(files, strings.TrimPrefix(h.Name, pythonFolder+"/"))
		}
	}
	slices.Sort(files)
	if want := []string{"lab/__init__.py", "lab/tests.py"}; !slices.Equal(files, want) {
		t.Errorf("the layer has %q, want %q", files, want)
	}

	if write("lab==1.0 --hash="+bundle.DigestOf(nil).String()+"\n") == first {
		t.Error("another list has the same key")
	}
	var missing *unavailableError
	if err := b.python(t.Context(), newLayer(), list); !errors.As(err, &missing) {
		t.Errorf("a package with another hash: %v", err)
	}
}

// TestNoPython: a machine without that Python makes the other images.
func TestNoPython(t *testing.T) {
	b, err := newBuilder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	var missing *unavailableError
	if err := b.python(t.Context(), newLayer(), "requirements.txt"); !errors.As(err, &missing) {
		t.Errorf("%v is not that it cannot be had", err)
	}
}

// writeWheel writes a Python package, with a program and with tests, and returns the file's content.
func writeWheel(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z := zip.NewWriter(f)
	const info = "lab-1.0.dist-info/"
	for _, file := range [][2]string{
		{"lab/__init__.py", "def main(): pass\n"},
		{"lab/tests.py", ""},
		{"lab/tests/__init__.py", ""},
		{info + "METADATA", "Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n"},
		{info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{info + "entry_points.txt", "[console_scripts]\nlab = lab:main\n"},
		{info + "RECORD", "lab/__init__.py,,\nlab/tests.py,,\nlab/tests/__init__.py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "entry_points.txt,,\n" + info + "RECORD,,\n"},
	} {
		w, err := z.Create(file[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, file[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
