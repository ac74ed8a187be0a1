package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
	"atoll/test/programs/imagedir"
)

// builder makes images in a folder, an image layout with more beside it: bin has the
// programs, made tells which image was made of what.
type builder struct {
	dir    string // absolute
	prefix string // of the progress lines
}

func newBuilder(dir string) (*builder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"bin", "made"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return nil, err
		}
	}
	return &builder{dir: dir}, nil
}

// unavailableError is what cannot be had on this machine: the image is left out.
type unavailableError struct{ err error }

func (e *unavailableError) Error() string { return e.err.Error() }
func (e *unavailableError) Unwrap() error { return e.err }

// program is the path of a program in bin.
func (b *builder) program(name string) string { return filepath.Join(b.dir, "bin", name) }

func (b *builder) keyFile(name string) string { return filepath.Join(b.dir, "bin", "."+name+".key") }

// has says whether bin has a program that was made of what the key is of.
func (b *builder) has(name, key string) bool {
	data, err := os.ReadFile(b.keyFile(name))
	if err != nil || string(data) != key {
		return false
	}
	_, err = os.Stat(b.program(name))
	return err == nil
}

// keep puts a program into bin. A key is there only with its program.
func (b *builder) keep(name, key string, r io.Reader) error {
	if err := os.Remove(b.keyFile(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := bundle.WriteFile(b.program(name), func(f *os.File) error {
		if _, err := io.Copy(f, r); err != nil {
			return err
		}
		return f.Chmod(0o755)
	}); err != nil {
		return err
	}
	return bundle.WriteFile(b.keyFile(name), func(f *os.File) error {
		_, err := f.WriteString(key)
		return err
	})
}

// image makes an image if it is not in the folder.
func (b *builder) image(ctx context.Context, i image) (v1.Descriptor, error) {
	key, err := b.ingredients(ctx, i)
	if err != nil {
		return v1.Descriptor{}, err
	}
	path := filepath.Join(b.dir, "made", key)
	if d, err := b.made(path); err == nil {
		fmt.Fprintf(os.Stderr, "%s%s: up to date\n", b.prefix, i.wants[0])
		return d, nil
	}
	start := time.Now()
	img, err := b.assemble(ctx, i)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d, err := imagedir.Add(b.dir, img)
	if err != nil {
		return v1.Descriptor{}, err
	}
	data, err := json.Marshal(d)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if err := bundle.WriteFile(path, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	}); err != nil {
		return v1.Descriptor{}, err
	}
	size := d.Size
	if m, err := img.Manifest(); err == nil {
		for _, l := range m.Layers {
			size += l.Size
		}
	}
	fmt.Fprintf(os.Stderr, "%s%s: image of %d MB, %.0fs\n", b.prefix, i.wants[0], size/1e6, time.Since(start).Seconds())
	return d, nil
}

// made returns the image that was made of what the file's name is the key of.
func (b *builder) made(path string) (v1.Descriptor, error) {
	data, err := bundle.ReadRegular(path, 1<<16)
	if err != nil {
		return v1.Descriptor{}, err
	}
	var d v1.Descriptor
	if err := json.Unmarshal(data, &d); err != nil {
		return v1.Descriptor{}, err
	}
	return d, imagedir.Check(b.dir, d.Digest)
}

// ingredients puts all programs of an image into bin and returns a key of all that the
// image is made of.
func (b *builder) ingredients(ctx context.Context, i image) (string, error) {
	keys := map[string]string{}
	for _, name := range i.programs {
		p, err := programNamed(name)
		if err != nil {
			return "", err
		}
		if keys[name], err = b.compile(ctx, p); err != nil {
			return "", err
		}
	}
	for _, pkg := range i.own {
		var err error
		if keys[pkg], err = b.compileOwn(ctx, pkg); err != nil {
			return "", err
		}
	}
	if i.envoy != "" {
		var err error
		if keys["envoy"], err = b.envoy(ctx); err != nil {
			return "", err
		}
	}
	if i.python != "" {
		var err error
		if keys[i.python], err = requirementsKey(i.python); err != nil {
			return "", err
		}
	}
	return i.key(keys)
}

// key is of the image's row in the table and of its programs' keys. Debian's packages are
// in it by name: an image that is there is not made again for a newer package.
func (i image) key(programs map[string]string) (string, error) {
	row := fmt.Sprintf("%#v", i)
	data, err := json.Marshal(programs)
	if err != nil {
		return "", err
	}
	return keyOf([]string{layoutVersion, row, string(data)}), nil
}

// ownDir is the folder of a package of this repository: the go command finds its module there.
func ownDir(pkg string) string {
	return filepath.FromSlash(strings.TrimPrefix(pkg, "atoll/"))
}

// compileOwn compiles a program of this repository into bin. Its key is its content, which
// changes with all sources that have a part in it.
func (b *builder) compileOwn(ctx context.Context, pkg string) (string, error) {
	temp, err := os.MkdirTemp(b.dir, "compile-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	out := filepath.Join(temp, "program")
	cmd := goCommand(ctx, ownDir(pkg), false, "build", "-trimpath", "-ldflags", "-s -w -buildid=", "-o", out, ".")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling %s: %w\n%s", pkg, err, tail(string(said)))
	}
	data, err := os.ReadFile(out)
	if err != nil {
		return "", err
	}
	key, name := bundle.DigestOf(data).Hex, filepath.Base(pkg)
	if b.has(name, key) {
		return key, nil
	}
	f, err := os.Open(out)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return key, b.keep(name, key, f)
}

// hasProgram says whether a machine has a program that an image is made with.
func hasProgram(name string) error {
	if _, err := exec.LookPath(name); err != nil {
		return &unavailableError{err}
	}
	return nil
}
