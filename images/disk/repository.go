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
	"atoll/bundle/bounds"
)

// checkPackages fails if the store lacks a package of the lock, or a name in it is none:
// names go into the arguments of mmdebstrap and apt.
func checkPackages(ctx context.Context, l *bundle.Lock, s *bundle.Store) error {
	var errs []error
	for _, p := range l.Packages {
		if err := p.Validate(); err != nil {
			errs = append(errs, err)
			continue
		}
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
// which is that of the lock. What a package says of itself must be what the lock says.
func writeRepository(ctx context.Context, dir string, l *bundle.Lock, s *bundle.Store) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var list bytes.Buffer
	for _, p := range l.Packages {
		store, err := filepath.Abs(s.Path(p.Digest))
		if err != nil {
			return err
		}
		control, err := readControl(ctx, store)
		if err == nil {
			err = checkControl(control, p, l.Platform)
		}
		if err != nil {
			return fmt.Errorf("reading package %s: %w", p.Name, err)
		}
		name := p.Digest.Hex + ".deb"
		if err := os.Symlink(store, filepath.Join(dir, name)); err != nil {
			return err
		}
		fmt.Fprintf(&list, "%s\nFilename: ./%s\nSize: %d\nSHA256: %s\n\n", bytes.TrimSpace(control), name, p.Size, p.Digest.Hex)
	}
	return os.WriteFile(filepath.Join(dir, "Packages"), list.Bytes(), 0o644)
}

// controlFields are those of a package's control file that apt installs by. The others are
// left out: one that is called like a checksum would stand beside ours.
var controlFields = []string{"Package", "Version", "Architecture", "Essential", "Protected", "Important", "Multi-Arch", "Priority", "Section",
	"Installed-Size", "Maintainer", "Provides", "Pre-Depends", "Depends", "Recommends", "Suggests", "Enhances", "Breaks", "Conflicts", "Replaces", "Description"}

// readControl reads these fields of the package at an absolute path. That there is one
// paragraph and that each field is in it once, dpkg-deb checks.
func readControl(ctx context.Context, path string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "dpkg-deb", append([]string{"--field", "--", path}, controlFields...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	control, err := io.ReadAll(io.LimitReader(out, bounds.DebFields+1))
	if err == nil && len(control) > bounds.DebFields {
		err = fmt.Errorf("its control file has more than %d bytes", bounds.DebFields)
	}
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("dpkg-deb: %w: %q", err, strings.TrimSpace(stderr.String()))
	}
	return control, nil
}

// checkControl fails unless a control file is that of the locked package: one whose bytes
// have the locked digest, and that calls itself something else, was put in its place.
func checkControl(control []byte, p bundle.LockedPackage, platform string) error {
	fields := map[string]string{}
	for line := range strings.Lines(string(control)) {
		if name, value, ok := strings.Cut(line, ":"); ok && !strings.ContainsAny(line[:1], " \t") {
			fields[name] = strings.TrimSpace(value)
		}
	}
	_, arch, _ := strings.Cut(platform, "/")
	switch {
	case fields["Package"] != p.Name || fields["Version"] != p.Version:
		return fmt.Errorf("it is %q %q, and is locked as %s %s", fields["Package"], fields["Version"], p.Name, p.Version)
	case !bundle.ForArchitecture(fields["Architecture"], arch):
		return fmt.Errorf("it is for %q, not for %s", fields["Architecture"], arch)
	}
	return nil
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
	built, err := strconv.ParseUint(strings.TrimSpace(string(head[8+16:8+28])), 10, 32)
	return int64(built), err
}
