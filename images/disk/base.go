package disk

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"atoll/bundle"
)

// glue is what makes a Debian an appliance's: files of the root file system and the
// scripts that build it.
//
//go:embed all:glue
var glue embed.FS

// baseFormat changes when what BuildBase makes of the same input changes.
const baseFormat = "atoll base 1"

// Base is a built operating system: a folder in the cache.
type Base struct {
	// Dir holds root.ext4, vmlinuz, initrd.img, systemd-bootx64.efi, and packages:
	// a line "NAME VERSION" for each that is installed.
	Dir string
	// Key is a digest of all that the base was built from.
	Key string
}

// Files of a base.
const (
	rootFile   = "root.ext4"
	kernelFile = "vmlinuz"
	initrdFile = "initrd.img"
	loaderFile = "systemd-bootx64.efi"
	listFile   = "packages"
	sumsFile   = "sums.json" // digests of the others; it is written last
)

// Path is where one of the base's files is.
func (b *Base) Path(name string) string { return filepath.Join(b.Dir, name) }

// RootUUID is the UUID of the root file system.
func (b *Base) RootUUID() string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte("root "+b.Key)).String()
}

// BuildBase builds the Debian root that the appliance runs from the packages of the
// lock, which must be in the store, with no network. A base of the same packages that
// is in cacheDir/base, and whole, is used again. Nothing else than Debian's tools is
// needed: no root either, if the user may make user namespaces and has subordinate IDs.
func BuildBase(ctx context.Context, l *bundle.Lock, s *bundle.Store, cacheDir string, o *Options) (*Base, error) {
	key, err := baseKey(l)
	if err != nil {
		return nil, fmt.Errorf("building base: %w", err)
	}
	dir, err := filepath.Abs(filepath.Join(cacheDir, "base"))
	if err != nil {
		return nil, fmt.Errorf("building base: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("building base: %w", err)
	}
	b := &Base{Dir: filepath.Join(dir, key), Key: key}
	unlock, err := lockBase(ctx, b.Dir)
	if err != nil {
		return nil, fmt.Errorf("building base: %w", err)
	}
	defer unlock()
	err = b.check(o)
	if err == nil {
		return b, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		o.log().Warn("building the base again", "folder", b.Dir, "reason", err)
	}
	if err := b.build(ctx, l, s, o); err != nil {
		return nil, fmt.Errorf("building base: %w", err)
	}
	return b, nil
}

// baseKey is a digest of all that a base is made of. The tools that make it are not
// among that: another version of them is no reason to build again.
func baseKey(l *bundle.Lock) (string, error) {
	if len(l.Packages) == 0 {
		return "", fmt.Errorf("the lock has no packages: %w", bundle.ErrStale)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\nplatform %s\nroom %d\n", baseFormat, l.Platform, rootRoom)
	var lines []string
	for _, p := range l.Packages {
		lines = append(lines, fmt.Sprintf("package %s %s %s", p.Name, p.Version, p.Digest))
	}
	slices.Sort(lines)
	fmt.Fprintln(sum, strings.Join(lines, "\n"))
	err := fs.WalkDir(glue, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := glue.ReadFile(path)
		fmt.Fprintf(sum, "file %s %s\n", path, bundle.DigestOf(data))
		return err
	})
	return hex.EncodeToString(sum.Sum(nil))[:32], err
}

// build makes the base in a folder of another name and renames it when it is whole.
func (b *Base) build(ctx context.Context, l *bundle.Lock, s *bundle.Store, o *Options) (err error) {
	if err := checkPackages(ctx, l, s); err != nil {
		return err
	}
	if err := lookBaseTools(); err != nil {
		return err
	}
	work := b.Dir + tempSuffix
	if err := errors.Join(removeBase(ctx, b.Dir), removeBase(ctx, work), os.Mkdir(work, 0o755)); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, removeBase(context.WithoutCancel(ctx), work))
	}()
	if err := buildIn(ctx, work, b, l, s, o); err != nil {
		return err
	}
	whole := filepath.Join(work, "whole")
	if err := errors.Join(writeSums(whole), syncTree(whole), os.Rename(whole, b.Dir)); err != nil {
		return err
	}
	return syncPath(filepath.Dir(b.Dir))
}

// removeBase removes a base or what was left of building one. Some of that belongs to
// other IDs of the user.
func removeBase(ctx context.Context, dir string) error {
	err := os.RemoveAll(dir)
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		err = isolated(ctx, "rm", "-rf", "--one-file-system", dir).Run()
	}
	if err != nil {
		return fmt.Errorf("removing %s: %w", dir, err)
	}
	return nil
}

// writeSums records the digests of the files in dir.
func writeSums(dir string) error {
	sums, err := sumFiles(dir)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(sums, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, sumsFile), append(data, '\n'), 0o644)
}

// check says whether the base is there and as it was built. The error wraps
// fs.ErrNotExist if there is none.
func (b *Base) check(o *Options) error {
	data, err := os.ReadFile(b.Path(sumsFile))
	if err != nil {
		return err
	}
	want := map[string]string{}
	if err := json.Unmarshal(data, &want); err != nil {
		return fmt.Errorf("reading %s: %w", b.Path(sumsFile), err)
	}
	got, err := sumFiles(b.Dir)
	if err != nil {
		return fmt.Errorf("checking base: %w", err)
	}
	for name, sum := range got {
		if want[name] != sum {
			return fmt.Errorf("checking base: %s is not as it was built", b.Path(name))
		}
	}
	return nil
}

// sumFiles gives the digests of a base's files.
func sumFiles(dir string) (map[string]string, error) {
	sums := map[string]string{}
	for _, name := range []string{rootFile, kernelFile, initrdFile, loaderFile, listFile} {
		sum, err := sumSparse(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		sums[name] = sum
	}
	return sums, nil
}

const (
	tempSuffix = ".tmp"
	lockSuffix = ".lock"
)

// lockBase waits until no one else builds or checks the base, and removes what killed
// builds of any base left behind.
func lockBase(ctx context.Context, dir string) (unlock func(), err error) {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "*"+tempSuffix))
	if err != nil {
		return nil, err
	}
	for _, work := range left {
		other, err := flock(strings.TrimSuffix(work, tempSuffix)+lockSuffix, syscall.LOCK_NB)
		if err != nil {
			continue // someone is at it
		}
		err = removeBase(ctx, work)
		other.Close()
		if err != nil {
			return nil, err
		}
	}
	f, err := flock(dir+lockSuffix, 0)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// flock locks the file at path until it is closed, or its process dies.
func flock(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return f, nil
}
