package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"atoll/bundle"
	"atoll/images"
	"atoll/images/disk"
)

// usageError is a wrong flag or argument: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// damagedError is a bundle that cannot be read at all, or a file that is none: exit code 4.
type damagedError struct{ error }

func (e damagedError) Unwrap() error { return e.error }

// hintError adds to an error what the user can do about it.
type hintError struct {
	error
	hint string
}

func (e hintError) Unwrap() error { return e.error }

func withHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return hintError{err, fmt.Sprintf(format, args...)}
}

// hintRemake adds what makes anew what is missing or damaged, if that is the error.
func hintRemake(err error, format string, args ...any) error {
	var corrupt *bundle.CorruptError
	var damaged damagedError
	if errors.Is(err, bundle.ErrIncomplete) || errors.Is(err, fs.ErrNotExist) || errors.As(err, &corrupt) || errors.As(err, &damaged) {
		return withHint(err, format, args...)
	}
	return err
}

// exitCode is the one place that maps errors to exit codes; exitStatus says the
// same to people.
func exitCode(err error) int {
	var usage usageError
	var corrupt *bundle.CorruptError
	var damaged damagedError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		return 130
	case errors.As(err, &usage):
		return 2
	case errors.Is(err, bundle.ErrStale):
		return 3
	case errors.As(err, &corrupt), errors.As(err, &damaged), errors.Is(err, bundle.ErrUntrusted):
		return 4
	case errors.Is(err, bundle.ErrIncomplete):
		return 5
	default:
		return 1
	}
}

const exitStatus = `
EXIT STATUS
  0 ok, 1 error, 2 usage, 3 stale lock, 4 corrupt or not signed as asked,
  5 incomplete, 130 interrupted
`

// hints are the lines that follow an error: one for each thing the user can do.
func hints(err error) []string {
	var out []string
	var h hintError
	for at := err; errors.As(at, &h); at = h.error {
		out = append(out, h.hint)
	}
	slices.Reverse(out) // what is nearest to the cause comes first
	if packages := missingPackages(err); len(packages) > 0 {
		out = append(out, "apt-get install "+strings.Join(packages, " "))
	}
	var gone *images.GoneError
	if errors.As(err, &gone) {
		out = append(out, `the registry no longer has it; "atoll lock" pins what it has today`)
	}
	if errors.Is(err, bundle.ErrUnauthenticated) {
		out = append(out, "name the archive's key by [signed-by=FILE]; or, where nobody else can change what comes from it, say [trusted=yes] under base.sources: the lock records that")
	}
	switch {
	case errors.Is(err, syscall.ENOSPC):
		out = append(out, "free some space, or choose another place with --output or --cache")
	case errors.Is(err, fs.ErrPermission):
		out = append(out, "choose a folder you may write to with --output or --cache")
	}
	var incomplete incompleteError
	if errors.As(err, &incomplete) {
		out = append(out, "to go on: "+incomplete.again)
	}
	return out
}

// missingPackages are the Debian packages of all tools that an error says are missing.
func missingPackages(err error) []string {
	var packages []string
	switch e := err.(type) {
	case *disk.MissingToolError:
		packages = []string{e.Package}
	case interface{ Unwrap() []error }:
		for _, part := range e.Unwrap() {
			packages = append(packages, missingPackages(part)...)
		}
	case interface{ Unwrap() error }:
		packages = missingPackages(e.Unwrap())
	}
	slices.Sort(packages)
	return slices.Compact(packages)
}

// oneLineEach puts the parts of a joined error on lines of their own, each with
// the program's name, as compilers do. Lines that are indented belong to the one before
// them: they are some log's.
func oneLineEach(err error) string {
	var out strings.Builder
	for line := range strings.Lines(strings.TrimRight(err.Error(), "\n") + "\n") {
		if !strings.HasPrefix(line, "  ") {
			out.WriteString("atoll: error: ")
		}
		out.WriteString(line)
	}
	return out.String()
}
