// Package kubeflow builds the appliance of Kubeflow out of upstream's real manifests, with
// upstream's own programs as far as they can be had where no container registry is.
package kubeflow

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"atoll/bundle"
	"atoll/bundle/manifest"
)

//go:embed appliance.yaml full.yaml overlay small full
var files embed.FS

// Options are what Build works with. All that follows LabImages may be zero.
type Options struct {
	// Dir is a folder to write to. What an earlier run has left there is replaced.
	Dir string
	// Manifests is a folder or tar archive with upstream's manifests; the error says how they lie in it.
	Manifests string
	// K3s is the folder of a k3s release.
	K3s string
	// Programs is the folder of images that test/programs writes.
	Programs string
	// Atoll and LabImages are programs.
	Atoll, LabImages string
	// Full takes full.yaml, not appliance.yaml.
	Full bool
	// Auth is the way to sign in. Default: that of the definition.
	Auth string
	// Users may log in besides those of the definition.
	Users []bundle.User
	// Log gets what the programs print.
	Log io.Writer
}

// Build makes the appliance and returns the paths of its disk image and its bundle.
func Build(ctx context.Context, o *Options) (image, tar string, err error) {
	fail := func(err error) (string, string, error) {
		return "", "", fmt.Errorf("building Kubeflow's appliance: %w", err)
	}
	definition, err := o.define()
	if err != nil {
		return fail(err)
	}
	sources, err := unpack(ctx, o.Manifests, filepath.Join(o.Dir, "sources"))
	if err != nil {
		return fail(err)
	}
	flags := append([]string{"-f", definition}, sources.Flags()...)
	names, err := o.list(ctx, sources, flags)
	if err != nil {
		return fail(err)
	}
	list := filepath.Join(o.Dir, "names")
	if err := writeLines(list, names); err != nil {
		return fail(err)
	}
	if err := o.run(ctx, o.LabImages, o.serve(list, names, flags)...); err != nil {
		return fail(err)
	}
	return filepath.Join(o.Dir, "build/kubeflow.raw"), filepath.Join(o.Dir, "build/kubeflow.bundle.tar"), nil
}

// define writes the definition and its overlay, and returns the definition's path.
func (o *Options) define() (path string, err error) {
	name := "appliance.yaml"
	if o.Full {
		name = "full.yaml"
	}
	text, err := files.ReadFile(name)
	if err != nil {
		return "", err
	}
	path = filepath.Join(o.Dir, "appliance.yaml")
	d, err := bundle.ParseDefinition(path, text)
	if err != nil {
		return "", err
	}
	if d.K3s.Release, err = filepath.Abs(o.K3s); err != nil {
		return "", err
	}
	if o.Auth != "" {
		d.Auth = o.Auth
	}
	if d.Images, err = withoutFairing(o.Programs, d.Images); err != nil {
		return "", err
	}
	d.Host.Users = append(d.Host.Users, o.Users...)
	for _, dir := range d.Overlays {
		to := filepath.Join(o.Dir, dir)
		if err := os.RemoveAll(to); err != nil {
			return "", err
		}
		from, err := fs.Sub(files, dir)
		if err != nil {
			return "", err
		}
		if err := os.CopyFS(to, from); err != nil {
			return "", err
		}
	}
	if text, err = yaml.Marshal(d); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, text, 0o644)
}

// list returns the names that the appliance's images are fetched by, once what is pinned by
// a digest has those of the images that are here. A program that a pod would miss is an error.
func (o *Options) list(ctx context.Context, sources Sources, flags []string) ([]string, error) {
	images, err := listImages(ctx, o.Atoll, flags)
	if err != nil {
		return nil, err
	}
	if err := checkPrograms(o.Programs, images); err != nil {
		return nil, err
	}
	names := namesOf(images)
	changed, err := Repin(ctx, o.LabImages, o.Programs, sources, names)
	if err != nil || changed == 0 {
		return names, err
	}
	return ListImages(ctx, o.Atoll, flags)
}

// serve is the command line of labimages that locks and builds an appliance with images
// under the given names.
func (o *Options) serve(list string, names, flags []string) []string {
	const both = `"$0" lock "$@" && exec "$0" build --frozen "$@"`
	args := []string{"serve", "-dir", filepath.Join(o.Dir, "registry"), "-stand-ins", list, "-programs", o.Programs}
	return slices.Concat(args, []string{"--", "sh", "-c", both, o.Atoll}, flags, Mirrors(names))
}

// Mirrors are the flags of atoll that send each registry of the names to labimages'.
func Mirrors(names []string) []string {
	var flags []string
	seen := map[string]bool{}
	for _, name := range names {
		if host, _, _ := strings.Cut(name, "/"); !seen[host] {
			seen[host] = true
			flags = append(flags, "--mirror", host+"={registry}/"+host)
		}
	}
	return flags
}

// ListImages asks atoll for the names that an appliance's images are fetched by.
func ListImages(ctx context.Context, atoll string, flags []string) ([]string, error) {
	images, err := listImages(ctx, atoll, flags)
	return namesOf(images), err
}

func listImages(ctx context.Context, atoll string, flags []string) ([]manifest.Image, error) {
	out, err := output(ctx, atoll, append([]string{"images", "--json"}, flags...)...)
	if err != nil {
		return nil, err
	}
	var images []manifest.Image
	if err := json.Unmarshal(out, &images); err != nil {
		return nil, fmt.Errorf("reading the list of images: %w", err)
	}
	return images, nil
}

func namesOf(images []manifest.Image) []string {
	var names []string
	for _, im := range images {
		if im.Omitted == "" {
			names = append(names, fetched(im))
		}
	}
	return names
}

func writeLines(path string, lines []string) error {
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// run runs a program whose output is for people.
func (o *Options) run(ctx context.Context, name string, args ...string) error {
	cmd := newCommand(ctx, name, args)
	cmd.Stdout, cmd.Stderr = o.Log, o.Log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", filepath.Base(name), args[0], err)
	}
	return nil
}

// output runs a program and returns what it prints to stdout.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := newCommand(ctx, name, args)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), args[0], err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// newCommand is a program that is asked to end, and given time to, when the context ends.
func newCommand(ctx context.Context, name string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// errNotHere says what must be fetched.
func errNotHere(path string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf(`no manifests of Kubeflow at %s
hint: state a folder, or a tar archive of one, that holds upstream's sources unpacked:
hint:   manifests-26.03         https://github.com/kubeflow/manifests at tag 26.03
hint:   argo-workflows-3.7.3    https://github.com/argoproj/argo-workflows at tag v3.7.3
hint:   jobset-0.10.1/manifests.yaml
hint:                           https://github.com/kubernetes-sigs/jobset/releases/download/v0.10.1/manifests.yaml
hint: make kubeflow KUBEFLOW=PATH`, path)
}
