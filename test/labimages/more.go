package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"atoll/test/programs/imagedir"
)

// extra is what some tests need besides the lab's own images. Empty fields add nothing.
type extra struct {
	standIns string   // file with names
	programs string   // folder of images with real programs, for the names that it has
	plans    []string // files
}

// dryrunName is the image that holds a plan against an API server.
const dryrunName = "ghcr.io/atoll-lab/dryrun:1.0"

func (b *builder) more(ctx context.Context, e extra) ([]built, error) {
	var out []built
	if e.standIns != "" {
		names, err := os.ReadFile(e.standIns)
		if err != nil {
			return nil, fmt.Errorf("reading names: %w", err)
		}
		real, err := realImages(e.programs)
		if err != nil {
			return nil, err
		}
		for i, name := range strings.Fields(string(names)) {
			if slices.ContainsFunc(labImages(), func(li labImage) bool { return slices.Contains(li.names, name) }) {
				continue // it is here itself
			}
			repository, err := imagedir.Repository(name)
			if err != nil {
				return nil, err
			}
			if img, ok := real[repository]; ok {
				out = append(out, built{[]string{name}, img})
				continue
			}
			what, err := b.standIn(ctx, name, i%2 == 0)
			if err != nil {
				return nil, fmt.Errorf("building %s: %w", name, err)
			}
			out = append(out, built{[]string{name}, what})
		}
	}
	if len(e.plans) > 0 {
		what, err := b.dryrun(ctx, e.plans)
		if err != nil {
			return nil, fmt.Errorf("building %s: %w", dryrunName, err)
		}
		out = append(out, built{[]string{dryrunName}, what})
	}
	return out, nil
}

// realImages are the images of a folder that test/programs wrote, by their repositories.
func realImages(dir string) (map[string]v1.Image, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := imagedir.Read(dir)
	if err != nil {
		return nil, err
	}
	real := map[string]v1.Image{}
	for _, e := range entries {
		if real[e.Repository], err = imagedir.Image(dir, e.Digest); err != nil {
			return nil, err
		}
	}
	return real, nil
}

// dryrun is the program with its plans.
func (b *builder) dryrun(ctx context.Context, plans []string) (remote.Taggable, error) {
	program, err := b.program(ctx, "dryrun", archs[0])
	if err != nil {
		return nil, err
	}
	var files []file
	entrypoint := []string{"/dryrun"}
	for _, path := range plans {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading plan: %w", err)
		}
		files = append(files, file{filepath.Base(path), 0o644, data})
		entrypoint = append(entrypoint, "/"+filepath.Base(path))
	}
	l, err := layer(files, true)
	if err != nil {
		return nil, err
	}
	return image(archs[0], entrypoint, b.base, program, l)
}

// standIn is a small image that takes the place of a real one: it has its name and waits
// for ever. Who needs an answer of it starts its /standin, which answers HTTP. One that is
// pinned by a digest has no such program and always the same digest, which depends on the
// repository alone.
func (b *builder) standIn(ctx context.Context, name string, multiArch bool) (remote.Taggable, error) {
	repository, _, pinned := strings.Cut(name, "@")
	images := map[string]v1.Image{}
	for _, arch := range archs {
		l, err := layer([]file{
			{"NAME", 0o644, []byte(repository + "\n")},
			{"pause", 0o755, pauseProgram(arch)},
		}, false)
		if err != nil {
			return nil, err
		}
		layers := []v1.Layer{l}
		if !pinned && arch == archs[0] {
			program, err := b.program(ctx, "standin", arch)
			if err != nil {
				return nil, err
			}
			layers = append(layers, b.base, program)
		}
		if images[arch], err = image(arch, []string{"/pause"}, layers...); err != nil {
			return nil, err
		}
	}
	if multiArch || pinned {
		return index(archs, images), nil
	}
	return images[archs[0]], nil
}
