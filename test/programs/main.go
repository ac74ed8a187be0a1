// Programs builds upstream's real programs and puts each into a container image, for
// appliances whose programs run without any container registry to fetch them from.
//
//	programs [-full] [-only REPOSITORY,…] DIR    build into the folder DIR, an OCI image layout
//	programs -list                               print the table: what upstream wants, what runs here
//
// "labimages serve -stand-ins NAMES -programs DIR" serves the images under upstream's names.
// Run it in the repository's root: go run ./test/programs build/programs
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"atoll/test/programs/imagedir"
)

// modulesDir holds the modules that the programs are compiled in, from the repository's root.
const modulesDir = "test/programs/modules"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "programs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("programs", flag.ContinueOnError)
	full := flags.Bool("full", false, "build the whole set, not only the small one")
	list := flags.Bool("list", false, "print the table and build nothing")
	only := flags.String("only", "", "build the images of these repositories, with commas between, and leave the others of the folder as they are")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *list {
		return printTable(ctx, os.Stdout, images())
	}
	if flags.NArg() != 1 {
		return errors.New("want the folder to build into")
	}
	wanted, err := choose(images(), *full, *only)
	if err != nil {
		return err
	}
	return build(ctx, flags.Arg(0), wanted, *only != "")
}

// choose returns the images of the table that are asked for.
func choose(table []image, full bool, only string) ([]image, error) {
	if only == "" {
		return slices.DeleteFunc(table, func(i image) bool { return i.full && !full }), nil
	}
	var chosen []image
	for _, name := range strings.Split(only, ",") {
		n := slices.IndexFunc(table, func(i image) bool { return slices.Contains(i.repositories(), name) })
		if n < 0 {
			return nil, fmt.Errorf("no image of the table has the repository %q", name)
		}
		chosen = append(chosen, table[n])
	}
	return chosen, nil
}

// build makes the images that are not in the folder yet, and names them all in its index:
// beside the others that it has, where these are to stay.
func build(ctx context.Context, dir string, table []image, keep bool) error {
	b, err := newBuilder(dir)
	if err != nil {
		return err
	}
	var entries []imagedir.Entry
	for n, i := range table {
		b.prefix = fmt.Sprintf("programs: %d of %d: ", n+1, len(table))
		d, err := b.image(ctx, i)
		var missing *unavailableError
		if errors.As(err, &missing) {
			fmt.Fprintf(os.Stderr, "%s%s is left out, and tests that need it skip: %v\n", b.prefix, i.wants[0], missing)
			continue
		}
		if err != nil {
			return fmt.Errorf("making %s: %w", i.wants[0], err)
		}
		for _, r := range i.repositories() {
			entries = append(entries, imagedir.Entry{Repository: r, Descriptor: d})
		}
	}
	if keep {
		others, err := imagedir.Read(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, o := range others {
			if !slices.ContainsFunc(entries, func(e imagedir.Entry) bool { return e.Repository == o.Repository }) {
				entries = append(entries, o)
			}
		}
	}
	return imagedir.WriteIndex(dir, entries)
}
