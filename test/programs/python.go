package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"atoll/bundle"
)

// Python packages are for Debian's Python of this version.
const (
	pythonProgram = "python3.11"
	pythonFolder  = "usr/local/lib/python3.11/dist-packages"
)

// requirementsKey is of a list of Python packages, which has a hash of each.
func requirementsKey(requirements string) (string, error) {
	data, err := os.ReadFile(filepath.FromSlash(requirements))
	if err != nil {
		return "", err
	}
	return bundle.DigestOf(data).Hex, nil
}

// python puts the packages of a list, which names all that they depend on, into a layer, as
// the machine's own pip is set up to fetch them.
func (b *builder) python(ctx context.Context, l *layer, requirements string) error {
	if err := hasProgram(pythonProgram); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(b.dir, "pip-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	cmd := exec.CommandContext(ctx, pythonProgram, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
		"--require-hashes", "--no-compile", "--target", temp, "--requirement", filepath.FromSlash(requirements))
	if said, err := cmd.CombinedOutput(); err != nil {
		return &unavailableError{fmt.Errorf("installing the Python packages of %s: %w\n%s", requirements, err, tail(string(said)))}
	}
	if err := trimPackages(temp); err != nil {
		return err
	}
	return l.tree(pythonFolder, temp)
}

// trimPackages deletes from a folder of Python packages what nobody imports: their tests, and
// the programs that pip writes for the interpreter of this machine.
func trimPackages(dir string) error {
	if err := os.RemoveAll(filepath.Join(dir, "bin")); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || d.Name() != "tests" && d.Name() != "__pycache__" {
			return err
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		return fs.SkipDir
	})
}
