package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// debian puts Debian's packages with all that they depend on into a layer. Their
// maintainer scripts do not run.
func (b *builder) debian(ctx context.Context, l *layer, packages []string) error {
	debs, err := b.download(ctx, packages)
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(debs[0]))
	for _, name := range merged {
		if err := errors.Join(l.dir("usr/"+name, 0o755), l.link(name, "usr/"+name)); err != nil {
			return err
		}
	}
	for _, deb := range debs {
		if err := unpack(ctx, l, deb); err != nil {
			return fmt.Errorf("unpacking %s: %w", filepath.Base(deb), err)
		}
	}
	return nil
}

// download fetches packages for a machine where nothing is installed, as the machine's own
// apt is set up, and returns the files, in a folder of their own, sorted.
func (b *builder) download(ctx context.Context, packages []string) ([]string, error) {
	for _, name := range []string{"apt-get", "dpkg-deb"} {
		if err := hasProgram(name); err != nil {
			return nil, err
		}
	}
	cache, err := os.MkdirTemp(b.dir, "apt-")
	if err != nil {
		return nil, err
	}
	status := filepath.Join(cache, "status")
	if err := errors.Join(os.Mkdir(filepath.Join(cache, "partial"), 0o755), os.WriteFile(status, nil, 0o644)); err != nil {
		return nil, err
	}
	args := []string{
		"-o", "Dir::State::status=" + status, "-o", "Dir::Cache=" + cache, "-o", "Dir::Cache::archives=" + cache,
		"-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root", "-o", "APT::Architecture=amd64",
		"-qq", "--no-install-recommends", "--download-only", "--yes", "install",
	}
	cmd := exec.CommandContext(ctx, "apt-get", append(args, packages...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	said, err := cmd.CombinedOutput()
	debs, _ := filepath.Glob(filepath.Join(cache, "*.deb"))
	if err == nil && len(debs) == 0 {
		err = errors.New("no package came")
	}
	if err != nil {
		os.RemoveAll(cache)
		return nil, &unavailableError{fmt.Errorf("fetching Debian's %s: %w\n%s", strings.Join(packages, ", "), err, tail(string(said)))}
	}
	slices.Sort(debs)
	return debs, nil
}

// merged are folders that Debian has below usr, with links to them; packages still name
// them at the top.
var merged = []string{"bin", "lib", "lib64", "sbin"}

// unwanted are folders that no program reads.
var unwanted = []string{"usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/lintian/", "usr/share/info/", "var/cache/"}

// unpack puts a package's files into a layer.
func unpack(ctx context.Context, l *layer, deb string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = l.merge(tar.NewReader(out))
	// What is left is read, so that dpkg-deb ends by itself.
	_, rest := io.Copy(io.Discard, out)
	if err := errors.Join(err, rest, cmd.Wait()); err != nil {
		return fmt.Errorf("%w %s", err, tail(stderr.String()))
	}
	return nil
}

// merge adds the files of a package's tar file, which root owns.
func (l *layer) merge(r *tar.Reader) error {
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := usrMerged(strings.Trim(strings.TrimPrefix(h.Name, "."), "/"))
		if name == "" || slices.ContainsFunc(unwanted, func(u string) bool { return strings.HasPrefix(name+"/", u) }) {
			continue
		}
		switch h.Typeflag {
		case tar.TypeDir, tar.TypeReg, tar.TypeSymlink:
		case tar.TypeLink:
			h.Linkname = usrMerged(strings.TrimPrefix(h.Linkname, "./"))
		default:
			return fmt.Errorf("%s is neither file, folder nor link", h.Name)
		}
		if err := l.add(&tar.Header{Typeflag: h.Typeflag, Name: name, Linkname: h.Linkname, Mode: h.Mode, Size: h.Size}, r); err != nil {
			return err
		}
	}
}

func usrMerged(name string) string {
	if first, _, _ := strings.Cut(name, "/"); slices.Contains(merged, first) {
		return "usr/" + name
	}
	return name
}
