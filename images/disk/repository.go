package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"atoll/bundle"
)

// checkPackages fails if the store lacks a package of the lock.
func checkPackages(ctx context.Context, l *bundle.Lock, s *bundle.Store) error {
	var errs []error
	for _, p := range l.Packages {
		ok, err := s.Has(ctx, p.Digest, p.Size)
		if err == nil && !ok {
			err = fmt.Errorf("package %s %s is not in the store: %w", p.Name, p.Version, bundle.ErrIncomplete)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// writeRepository makes a flat apt repository of the locked packages in dir. It has no
// signature, nor needs one: apt checks each package against the SHA-256 in the list,
// which is that of the lock.
func writeRepository(ctx context.Context, dir string, l *bundle.Lock, s *bundle.Store) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var list bytes.Buffer
	for _, p := range l.Packages {
		control, err := exec.CommandContext(ctx, "dpkg-deb", "--field", s.Path(p.Digest)).Output()
		if err != nil {
			return fmt.Errorf("reading package %s: dpkg-deb: %w", p.Name, err)
		}
		name := p.Digest.Hex + ".deb"
		store, err := filepath.Abs(s.Path(p.Digest))
		if err != nil {
			return err
		}
		if err := os.Symlink(store, filepath.Join(dir, name)); err != nil {
			return err
		}
		fmt.Fprintf(&list, "%s\nFilename: ./%s\nSize: %d\nSHA256: %s\n\n", bytes.TrimSpace(control), name, p.Size, p.Digest.Hex)
	}
	return os.WriteFile(filepath.Join(dir, "Packages"), list.Bytes(), 0o644)
}

// newestPackage is when the youngest of the locked packages was built, by the date
// that its maker gave it. A base carries no later time.
func newestPackage(l *bundle.Lock, s *bundle.Store) (time.Time, error) {
	var newest int64
	for _, p := range l.Packages {
		built, err := packageTime(s, p)
		if err != nil {
			return time.Time{}, fmt.Errorf("reading package %s: %w", p.Name, err)
		}
		newest = max(newest, built)
	}
	return time.Unix(newest, 0), nil
}

// packageTime reads a .deb's head: the magic of ar(5) and the header of the first
// member, whose time is that of the build.
func packageTime(s *bundle.Store, p bundle.LockedPackage) (int64, error) {
	f, err := s.Open(p.Digest)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	head := make([]byte, 8+60)
	if _, err := io.ReadFull(f, head); err != nil {
		return 0, err
	}
	if string(head[:8]) != "!<arch>\n" {
		return 0, errors.New("is not a Debian package")
	}
	return strconv.ParseInt(strings.TrimSpace(string(head[8+16:8+28])), 10, 64)
}
