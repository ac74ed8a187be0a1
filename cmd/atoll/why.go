package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"atoll/bundle"
)

func newWhyCommand(e *env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "why IMAGE",
		Short: "Explain why the lock has an image",
		Long: `Why prints every place that needs an image of the lock. IMAGE is a reference, in its
short form too (busybox:1.28), or a part of one.
` + exitStatus,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error { return runWhy(e, file, args[0]) },
	}
	cmd.Flags().StringVarP(&file, "file", "f", "appliance.yaml", "definition whose lock to read")
	return cmd
}

func runWhy(e *env, file, name string) error {
	path := lockFile(file)
	l, err := readLock(path)
	if err != nil {
		return withHint(err, "atoll lock -f %s", file)
	}
	found := l.Find(name)
	if len(found) == 0 {
		return withHint(fmt.Errorf("%s has no image %q", path, name), "atoll images -f %s lists all, those that are left out too", file)
	}
	var lines []string
	for i, im := range found {
		if i > 0 {
			lines = append(lines, "")
		}
		lines = append(lines, plain(im.Reference), plainf("  %s, %s, %s", im.Tier, size(im.Size), im.Digest))
		if im.From != "" {
			lines = append(lines, plainf("  fetched from %s", im.From))
		}
		for _, where := range im.Where {
			lines = append(lines, plainf("  %s", where))
		}
	}
	_, err = fmt.Fprintln(e.stdout, strings.Join(lines, "\n"))
	return err
}

func newDiffCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Compare two locks in images and bytes",
		Long: `Diff lists the images that are only in one of two locks ("-" and "+"), or that became
another one ("~"), and how many bytes each makes the appliance larger or smaller; and the
packages that only one of them takes from an archive without a signature.
` + exitStatus,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error { return runDiff(e, args[0], args[1]) },
	}
}

func runDiff(e *env, oldPath, newPath string) error {
	before, err := readLock(oldPath)
	if err != nil {
		return err
	}
	after, err := readLock(newPath)
	if err != nil {
		return err
	}
	t := newTable(e.stdout)
	var added, removed, changed int
	for _, c := range bundle.Diff(before, after) {
		sign := "~"
		switch {
		case c.Old == nil:
			sign, added = "+", added+1
		case c.New == nil:
			sign, removed = "-", removed+1
		default:
			changed++
		}
		t.row(sign+" "+c.Reference, sizeChange(c.Bytes()))
	}
	diffUnauthenticated(t, "-", before, after)
	diffUnauthenticated(t, "+", after, before)
	if err := t.Flush(); err != nil {
		return err
	}
	bytes := after.Total("").Bytes - before.Total("").Bytes
	return e.print("%d added, %d removed, %d changed, %s", added, removed, changed, sizeChange(bytes))
}

// diffUnauthenticated lists the packages that a lock takes without a signature and another
// does not.
func diffUnauthenticated(t table, sign string, l, other *bundle.Lock) {
	for _, p := range l.Packages {
		if p.Unauthenticated && !slices.ContainsFunc(other.Packages, func(o bundle.LockedPackage) bool { return o.Unauthenticated && o.Digest == p.Digest }) {
			t.row(fmt.Sprintf("%s package %s %s from %s", sign, p.Name, p.Version, p.Archive), "unauthenticated")
		}
	}
}

func sizeChange(n int64) string {
	if n < 0 {
		return "-" + size(-n)
	}
	return "+" + size(n)
}

// writeSizes prints what each component's images weigh, by tier, and all of them.
func writeSizes(out io.Writer, l *bundle.Lock) error {
	t := newTable(out)
	t.row("COMPONENT", "TIER", "IMAGES", "SIZE")
	for _, c := range l.Costs() {
		t.row(c.Component, c.Tier, strconv.Itoa(c.Images), size(c.Bytes))
	}
	for _, tier := range append(bundle.Tiers, "") {
		if c := l.Total(tier); c.Images > 0 || tier == "" {
			t.row("all", tier, strconv.Itoa(c.Images), size(c.Bytes))
		}
	}
	return t.Flush()
}
