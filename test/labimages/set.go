package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// archs are the platforms of the multi-arch images.
var archs = []string{"amd64", "arm64"}

// labImage is one image of the lab: what it runs and the names it is pushed under.
type labImage struct {
	names      []string // canonical; where it stands without tag, it is pushed by digest
	program    string   // folder of the program
	entrypoint []string
	multiArch  bool
}

// labImages are the lab's images but for the pinned one. The names are a contract
// with the manifests of the lab stack.
func labImages() []labImage {
	return []labImage{
		{names: []string{"ghcr.io/atoll-lab/webhook:1.0"}, program: "webhook", entrypoint: []string{"/webhook"}},
		{names: []string{"ghcr.io/atoll-lab/probe:1.0", "ghcr.io/atoll-lab/probe:stable"}, program: "probe", entrypoint: []string{"/probe"}, multiArch: true},
		{names: []string{"ghcr.io/atoll-lab/always:1.0"}, program: "probe", entrypoint: []string{"/probe"}, multiArch: true},
		{names: []string{"ghcr.io/atoll-lab/launcher:1.0"}, program: "launcher", entrypoint: []string{"/launcher"}},
		{names: []string{"docker.io/library/hello-lab:1.0"}, program: "probe", entrypoint: []string{"/probe", "hello"}},
	}
}

// pinnedName is where the pinned image is found, with its digest.
const pinnedName = "quay.io/atoll-lab/pinned@" + pinnedDigest

// built is an image or index with the names it goes by.
type built struct {
	names []string
	what  remote.Taggable
}

// buildAll makes every image of the lab.
func buildAll(ctx context.Context, more extra) ([]built, error) {
	dir, err := os.MkdirTemp("", "labimages-")
	if err != nil {
		return nil, fmt.Errorf("making work folder: %w", err)
	}
	defer os.RemoveAll(dir)
	base, err := layer(baseFiles(), true)
	if err != nil {
		return nil, err
	}
	b := builder{dir: dir, base: base, layers: map[string]v1.Layer{}}
	var out []built
	for _, li := range labImages() {
		what, err := b.build(ctx, li)
		if err != nil {
			return nil, fmt.Errorf("building %s: %w", li.names[0], err)
		}
		out = append(out, built{li.names, what})
	}
	p, err := pinned()
	if err != nil {
		return nil, fmt.Errorf("building %s: %w", pinnedName, err)
	}
	out = append(out, built{[]string{pinnedName}, p})
	moreImages, err := b.more(ctx, more)
	return append(out, moreImages...), err
}

type builder struct {
	dir    string
	base   v1.Layer
	layers map[string]v1.Layer // by program and architecture
}

func (b *builder) build(ctx context.Context, li labImage) (remote.Taggable, error) {
	wanted := archs[:1]
	if li.multiArch {
		wanted = archs
	}
	byArch := map[string]v1.Image{}
	for _, arch := range wanted {
		program, err := b.program(ctx, li.program, arch)
		if err != nil {
			return nil, err
		}
		if byArch[arch], err = image(arch, li.entrypoint, b.base, program); err != nil {
			return nil, err
		}
	}
	if li.multiArch {
		return index(archs, byArch), nil
	}
	return byArch[archs[0]], nil
}

// program compiles a program, statically, and gives the layer that holds it.
func (b *builder) program(ctx context.Context, name, arch string) (v1.Layer, error) {
	key := name + "-" + arch
	if l := b.layers[key]; l != nil {
		return l, nil
	}
	path := filepath.Join(b.dir, key)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", path, "atoll/test/labimages/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compiling %s for %s: %w\n%s", name, arch, err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading program: %w", err)
	}
	l, err := layer([]file{{name, 0o755, data}}, true)
	if err != nil {
		return nil, err
	}
	b.layers[key] = l
	return l, nil
}
