package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// kustomize is the peer at rendering, at the version that Kubeflow 26.03 is tested with.
const kustomize = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"

// upstream has the real manifests, which are not part of the repository.
const upstream = "../shared/upstream/kubeflow-26.03.tar.zst"

// rendering measures commands that render, and prints how they compare with the first.
func rendering(ctx context.Context, dir, atoll string, runs int) error {
	if _, err := os.Stat(upstream); err != nil {
		return fmt.Errorf("rendering: %w: the real manifests are not here", err)
	}
	subjects, err := renderers(ctx, dir, atoll)
	if err != nil {
		return err
	}
	for range runs {
		for _, s := range subjects {
			if s.before != nil {
				if err := s.before(); err != nil {
					return err
				}
			}
			if err := s.run(ctx); err != nil {
				return err
			}
		}
	}
	fmt.Println("Rendering Kubeflow 26.03")
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "COMMAND\tMEDIAN\tRATIO\tPEAK MEMORY")
	for _, s := range subjects {
		fmt.Fprintf(w, "%s\t%.2f s\t%.2f\t%d MiB\n", s.name, median(s.seconds), median(s.seconds)/median(subjects[0].seconds), s.memory>>20)
	}
	return w.Flush()
}

// renderer is a command that renders.
type renderer struct {
	name    string
	args    []string
	before  func() error // not measured
	seconds []float64
	memory  int64 // peak, bytes
}

func (r *renderer) run(ctx context.Context) error {
	u, err := measure(ctx, exec.Command(r.args[0], r.args[1:]...))
	if err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	r.seconds = append(r.seconds, u.seconds)
	r.memory = max(r.memory, u.memory)
	return nil
}

// renderers makes the input, and the commands that render it: kustomize all of it as one,
// atoll by components, and looking for images too.
func renderers(ctx context.Context, dir, atoll string) ([]*renderer, error) {
	if out, err := exec.CommandContext(ctx, "tar", "-C", dir, "--zstd", "-xf", upstream).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("tar: %w\n%s", err, out)
	}
	if err := install(ctx, dir, kustomize); err != nil {
		return nil, err
	}
	tree := filepath.Join(dir, "kubeflow-26.03")
	local := filepath.Join(dir, "local") // for kustomize, with the remote bases beside it
	if err := errors.Join(os.CopyFS(local, os.DirFS(tree)), localise(local, dir)); err != nil {
		return nil, err
	}
	definition := filepath.Join(dir, "appliance.yaml")
	if err := os.WriteFile(definition, []byte("name: bench\nstack: kubeflow\nauth: oauth2-proxy\nk3s: {version: v1.34.9+k3s1}\n"), 0o644); err != nil {
		return nil, err
	}
	cache := filepath.Join(dir, "cache")
	images := []string{atoll, "images", "-f", definition, "--cache", cache, "--allow-modified", "kubeflow-manifests,argo-workflows",
		"--source", "kubeflow-manifests=" + tree, "--source", "argo-workflows=" + filepath.Join(dir, "argo-workflows-3.7.3"),
		"--source", "jobset=" + filepath.Join(dir, "jobset-0.10.1/manifests.yaml")}
	return []*renderer{
		{name: "kustomize build example", args: []string{filepath.Join(dir, "kustomize"), "build", "--load-restrictor", "LoadRestrictionsNone", filepath.Join(local, "example")}},
		{name: "atoll images, nothing cached", args: images, before: func() error { return os.RemoveAll(cache) }},
		{name: "atoll images, again", args: images},
		{name: "atoll images --manifests example", args: []string{atoll, "images", "--manifests", filepath.Join(local, "example")}},
	}, nil
}

// localise points the remote bases at their copies: kustomize would fetch them.
func localise(tree, dir string) error {
	const third = "upstream/third-party/"
	for _, file := range []string{"pipeline/" + third + "argo/base", "pipeline/" + third + "argo/installs/cluster", "trainer/" + third + "jobset"} {
		path := filepath.Join(tree, "applications", file, "kustomization.yaml")
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		back, err := filepath.Rel(filepath.Dir(path), dir)
		if err != nil {
			return err
		}
		text := strings.NewReplacer("https://github.com/argoproj/argo-workflows", back+"/argo-workflows-3.7.3", "?ref=v3.7.3", "",
			"https://github.com/kubernetes-sigs/jobset/releases/download/v0.10.1", back+"/jobset-0.10.1").Replace(string(data))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
