package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// Debian's own grammars. A name, version or architecture of a package goes into arguments
// of apt and mmdebstrap, which read more than names there: options, patterns, paths, and
// "-" or "+" at the end. What these take is none of that.
var (
	// Debian policy 5.6.7. No package's name ends in a minus, which apt takes as "remove this".
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]*[a-z0-9+.]$`)
	// deb-version(7): [epoch:]upstream-version[-debian-revision]. An epoch that dpkg takes
	// is less than 2^31.
	packageVersion = regexp.MustCompile(`^([0-9]{1,9}:)?[0-9]([A-Za-z0-9.+~-]*[A-Za-z0-9.+~])?$`)
	// Debian policy 5.6.8.
	architecture = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*[a-z0-9]$`)
)

// maxDebian bounds a name and a version, in bytes: with both a file's name must be possible.
const maxDebian = 120

// IsPackageName says whether a Debian package can be called so.
func IsPackageName(s string) bool { return len(s) <= maxDebian && packageName.MatchString(s) }

// Validate says what of a locked package cannot be: a name or version that is not of
// Debian's grammar, a path that leads out of its archive, a digest or size that is none.
func (p LockedPackage) Validate() error {
	var err error
	switch {
	case !IsPackageName(p.Name):
		return fmt.Errorf("%q is not the name of a Debian package", p.Name)
	case len(p.Version) > maxDebian || !packageVersion.MatchString(p.Version):
		err = fmt.Errorf("%q is not a version of a Debian package", p.Version)
	case !isLine(p.Archive):
		err = fmt.Errorf("label %q of its archive is not a line of text", p.Archive)
	case !fs.ValidPath(p.Path) || p.Path == "." || !isLine(p.Path) || strings.Contains(p.Path, `\`):
		err = fmt.Errorf("path %q is not that of a file below an archive", p.Path)
	case !sound(p.Digest, p.Size):
		err = errors.New("no usable digest or size")
	}
	if err != nil {
		return fmt.Errorf("package %s: %w", p.Name, err)
	}
	return nil
}

// ForArchitecture says whether a package of an architecture, as its control file names it,
// can be installed on another: it is the same, or is for all.
func ForArchitecture(pkg, machine string) bool {
	return architecture.MatchString(pkg) && (pkg == machine || pkg == "all")
}
