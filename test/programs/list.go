package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"atoll/test/programs/imagedir"
)

func programNamed(name string) (program, error) {
	n := slices.IndexFunc(programs, func(p program) bool { return p.name == name })
	if n < 0 {
		return program{}, fmt.Errorf("the table has no program %q", name)
	}
	return programs[n], nil
}

// repositories are an image's names without tags, each once.
func (i image) repositories() []string {
	var all []string
	for _, name := range i.wants {
		r, err := imagedir.Repository(name)
		if err != nil {
			panic(err) // a test reads the table
		}
		if !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}

// upstream is the module that a program comes from, and its version.
func (p program) upstream(ctx context.Context) (path, version string, err error) {
	out, err := output(ctx, filepath.Join(modulesDir, p.module), "mod", "edit", "-json")
	if err != nil {
		return "", "", err
	}
	var mod struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal([]byte(out), &mod); err != nil {
		return "", "", fmt.Errorf("reading go.mod of %s: %w", p.module, err)
	}
	for _, r := range mod.Require {
		if (r.Path == p.pkg || strings.HasPrefix(p.pkg, r.Path+"/")) && len(r.Path) > len(path) {
			path, version = r.Path, r.Version
		}
	}
	if path == "" {
		return "", "", fmt.Errorf("go.mod of %s requires no module of %s", p.module, p.pkg)
	}
	return path, version, nil
}

// runs tells what is in an image: module@version, package.
func (i image) runs(ctx context.Context) (string, error) {
	var all []string
	for _, name := range slices.Sorted(maps.Values(i.programs)) {
		p, err := programNamed(name)
		if err != nil {
			return "", err
		}
		path, version, err := p.upstream(ctx)
		if err != nil {
			return "", err
		}
		all = append(all, path+"@"+version)
	}
	if i.envoy != "" {
		all = append(all, envoyPackage+" "+envoyVersion+" (Python)")
	}
	if len(i.programs) == 0 && i.envoy == "" {
		for _, d := range i.debian {
			if !slices.Contains([]string{"libc6", "bash", "busybox-static", "libstdc++6"}, d) {
				all = append(all, d+" (Debian)")
			}
		}
	}
	if i.python != "" {
		all = append(all, "the Python packages of "+i.python)
	}
	if i.kind == standIn {
		all = append(all, slices.Sorted(maps.Values(i.own))...)
	}
	return strings.Join(slices.Compact(all), ", "), nil
}

// printTable prints the table as Markdown.
func printTable(ctx context.Context, w io.Writer, table []image) error {
	fmt.Fprintln(w, "| upstream wants | runs here | which is | set |")
	fmt.Fprintln(w, "|-|-|-|-|")
	for _, i := range table {
		runs, err := i.runs(ctx)
		if err != nil {
			return err
		}
		set, which := "small", i.kind.String()
		if i.full {
			set = "whole"
		}
		if i.note != "" {
			which += ": " + i.note
		}
		if _, err := fmt.Fprintf(w, "| %s | %s | %s | %s |\n", strings.Join(i.wants, ", "), runs, which, set); err != nil {
			return err
		}
	}
	return nil
}
