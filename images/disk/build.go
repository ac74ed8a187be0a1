package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"atoll/bundle"
)

const (
	mib = 1 << 20
	gib = 1 << 30

	// rootRoom is the free space of the base's root file system. It must hold what
	// Ignition writes; after that the file system grows to its partition.
	rootRoom = 512 * mib
)

func lookBaseTools() error {
	return errors.Join(
		lookTool("mmdebstrap", "mmdebstrap"),
		lookTool("mke2fs", "e2fsprogs"),
		lookTool("debugfs", "e2fsprogs"),
		lookTool("dpkg-deb", "dpkg"),
		lookIsolated())
}

// buildIn builds the base in the folder work, and puts it in work/whole.
func buildIn(ctx context.Context, work string, b *Base, l *bundle.Lock, s *bundle.Store, o *Options) error {
	epoch, err := newestPackage(l, s)
	if err != nil {
		return err
	}
	if err := writeGlue(work); err != nil {
		return fmt.Errorf("writing files: %w", err)
	}
	if err := writeRepository(ctx, filepath.Join(work, "repository"), l, s); err != nil {
		return fmt.Errorf("writing package repository: %w", err)
	}
	if err := install(ctx, work, l, epoch, o); err != nil {
		return err
	}
	if err := checkInstalled(filepath.Join(work, listFile), l); err != nil {
		return err
	}
	if err := makeRoot(ctx, work, b, epoch, o); err != nil {
		return err
	}
	whole := filepath.Join(work, "whole")
	errs := []error{os.Mkdir(whole, 0o755)}
	for _, name := range []string{rootFile, kernelFile, initrdFile, loaderFile, listFile} {
		errs = append(errs, os.Rename(filepath.Join(work, name), filepath.Join(whole, name)))
	}
	return errors.Join(errs...)
}

// writeGlue writes the embedded files to work/glue.
func writeGlue(work string) error {
	return fs.WalkDir(glue, "glue", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(work, path)
		if d.IsDir() {
			return os.Mkdir(to, 0o755)
		}
		data, err := glue.ReadFile(path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(path, ".sh") {
			mode = 0o755
		}
		return os.WriteFile(to, data, mode)
	})
}

// install installs the packages to work/root, and then our files. The kernel and the
// like are left in work. Of --include mmdebstrap makes arguments of apt, at commas and
// spaces, which [checkPackages] has seen are in no name.
func install(ctx context.Context, work string, l *bundle.Lock, epoch time.Time, o *Options) error {
	var names []string
	for _, p := range l.Packages {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	cmd := isolated(ctx, "mmdebstrap",
		"--mode=root", // of our namespaces
		"--variant=essential", "--format=directory",
		"--architectures="+strings.TrimPrefix(l.Platform, "linux/"),
		"--include="+strings.Join(names, ","),
		"--dpkgopt=force-unsafe-io",
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/info/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-include=/usr/share/doc/*/copyright", // goes with the binaries
		"--setup-hook="+shellQuote(filepath.Join(work, "glue/setup.sh"))+` "$1"`,
		"--customize-hook="+shellQuote(filepath.Join(work, "glue/customize.sh"))+` "$1"`,
		"", filepath.Join(work, "root"), "-")
	cmd.Env = append(cmd.Env,
		"SOURCE_DATE_EPOCH="+strconv.FormatInt(epoch.Unix(), 10),
		"INITRD=No", // customize.sh makes the initramfs, once
		"TMPDIR="+work)
	// Trusted without a signature: see writeRepository.
	from := url.URL{Scheme: "copy", Path: filepath.Join(work, "repository")} // whatever the user's folder is called
	cmd.Stdin = strings.NewReader("deb [trusted=yes] " + from.String() + " ./\n")
	return run(cmd, o.log(), setupCounter(l, o.progress("base system")))
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// setupCounter tells progress by the lines in which dpkg says that it sets up a
// package. Packages are weighed by their size.
func setupCounter(l *bundle.Lock, progress func(done, total int64)) func(line string) {
	size := map[string]int64{}
	var done, total int64
	for _, p := range l.Packages {
		size[p.Name] += p.Size
		total += p.Size
	}
	progress(0, total)
	return func(line string) {
		rest, ok := strings.CutPrefix(line, "Setting up ")
		if !ok {
			return
		}
		name, _, _ := strings.Cut(rest, " ")
		name, _, _ = strings.Cut(name, ":") // of an architecture
		done += size[name]
		delete(size, name)
		progress(done, total)
	}
}

// checkInstalled fails unless just the locked packages are installed.
func checkInstalled(list string, l *bundle.Lock) error {
	data, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	locked := map[string]bool{}
	for _, p := range l.Packages {
		locked[p.Name+" "+p.Version] = true
	}
	var errs []error
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if !locked[line] {
			errs = append(errs, fmt.Errorf("package %s was installed but is not locked", line))
		}
		delete(locked, line)
	}
	for line := range locked {
		errs = append(errs, fmt.Errorf("package %s is locked but was not installed", line))
	}
	return errors.Join(errs...)
}

// makeRoot makes root.ext4 of the folder root.
func makeRoot(ctx context.Context, work string, b *Base, epoch time.Time, o *Options) error {
	root, file := filepath.Join(work, "root"), filepath.Join(work, rootFile)
	seconds := strconv.FormatInt(epoch.Unix(), 10)
	if err := run(isolated(ctx, "sh", filepath.Join(work, "glue/seal.sh"), root, seconds), o.log(), nil); err != nil {
		return fmt.Errorf("cleaning the root file system: %w", err)
	}
	used, err := isolated(ctx, "du", "--summarize", "--block-size=1", root).Output()
	if err != nil {
		return fmt.Errorf("measuring the root file system: %w", err)
	}
	field, _, _ := strings.Cut(string(used), "\t")
	n, err := strconv.ParseInt(field, 10, 64)
	if err != nil {
		return fmt.Errorf("measuring the root file system: %w", err)
	}
	// Journal and inode tables take less than an eighth.
	size := (n + n/8 + rootRoom + 128*mib - 1) / (128 * mib) * (128 * mib)
	progress := o.progress("root file system")
	progress(0, n)
	if err := makeExt4(ctx, file, root, size, b.RootUUID(), epoch, o); err != nil {
		return err
	}
	progress(n, n)
	return nil
}

// makeExt4 makes a file system of size bytes out of the folder root. UUID, hash seed
// and times are given, so that a tree gives the same bytes whenever it was made.
func makeExt4(ctx context.Context, file, root string, size int64, id string, epoch time.Time, o *Options) error {
	fake := "E2FSPROGS_FAKE_TIME=" + strconv.FormatInt(epoch.Unix(), 10)
	cmd := isolated(ctx, "mke2fs", "-q", "-t", "ext4", "-L", "atoll-root", "-U", id, "-m", "1",
		// What is not written is zero: the image is sparse, and is copied as zeros.
		"-E", "hash_seed="+id+",assume_storage_prezeroed=1",
		"-d", root, file, strconv.FormatInt(size/1024, 10)+"k")
	cmd.Env = append(cmd.Env, fake)
	if err := run(cmd, o.log(), nil); err != nil {
		return fmt.Errorf("making the root file system: %w", err)
	}
	used, err := usedInodes(file)
	if err != nil {
		return fmt.Errorf("making the root file system: %w", err)
	}
	// mke2fs 1.47.0 copies when an inode of the tree was last changed, which no one can
	// set (https://github.com/tytso/e2fsprogs/issues/164).
	var script strings.Builder
	for i := uint32(firstInode); i <= used; i++ {
		fmt.Fprintf(&script, "set_inode_field <%d> ctime @%d\n", i, epoch.Unix())
	}
	debugfs, err := findTool("debugfs", "e2fsprogs")
	if err != nil {
		return err
	}
	cmd = exec.CommandContext(ctx, debugfs, "-w", "-f", "-", file)
	cmd.Env = append(os.Environ(), fake)
	cmd.Stdin = strings.NewReader(script.String())
	if err := run(cmd, slog.New(slog.DiscardHandler), nil); err != nil {
		return fmt.Errorf("setting times of the root file system: %w", err)
	}
	return nil
}

// firstInode is the first of ext4's that is not reserved.
const firstInode = 11

// usedInodes is the number of inodes in use, which in a new file system are the first
// ones. Offsets are those of the kernel's struct ext4_super_block, which starts at 1024.
func usedInodes(file string) (uint32, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	super := make([]byte, 1024)
	if _, err := f.ReadAt(super, 1024); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	if le.Uint16(super[0x38:]) != 0xef53 {
		return 0, fmt.Errorf("%s is no ext4 file system", file)
	}
	return le.Uint32(super) - le.Uint32(super[0x10:]), nil
}
