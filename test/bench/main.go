// Bench measures atoll beside its peers: whole commands, in turns, on the same input, so
// that what else the machine does meets all of them. It prints medians and ratios.
//
//	bench [-runs N] ATOLL
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// kustomize is the peer at rendering, at the version that Kubeflow 26.03 is tested with.
const kustomize = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"

// upstream has the real manifests, which are not part of the repository.
const upstream = "../shared/upstream/kubeflow-26.03.tar.zst"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	runs := flag.Int("runs", 5, "how often each command is run")
	flag.Parse()
	if err := run(ctx, *runs, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, runs int, atoll string) error {
	if _, err := os.Stat(upstream); err != nil {
		return fmt.Errorf("rendering: %w: the real manifests are not here", err)
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if atoll, err = filepath.Abs(atoll); err != nil {
		return err
	}
	subjects, err := rendering(ctx, dir, atoll)
	if err != nil {
		return err
	}
	fmt.Println("Rendering Kubeflow 26.03")
	return measure(ctx, subjects, runs)
}

// subject is a command to measure.
type subject struct {
	name    string
	args    []string
	before  func() error // not measured
	seconds []float64
	memory  int64 // peak, KiB
}

// rendering makes the input, and the commands that render it: kustomize all of it as one,
// atoll by components, and looking for images too.
func rendering(ctx context.Context, dir, atoll string) ([]*subject, error) {
	if err := command(ctx, "tar", "-C", dir, "--zstd", "-xf", upstream); err != nil {
		return nil, err
	}
	install := exec.CommandContext(ctx, "go", "install", kustomize)
	install.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0")
	install.Stderr = os.Stderr
	if err := install.Run(); err != nil {
		return nil, fmt.Errorf("installing kustomize: %w", err)
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
	images := []string{atoll, "images", "-f", definition, "--cache", cache, "--allow-modified", "kubeflow-manifests",
		"--source", "kubeflow-manifests=" + tree, "--source", "argo-workflows=" + filepath.Join(dir, "argo-workflows-3.7.3"),
		"--source", "jobset=" + filepath.Join(dir, "jobset-0.10.1/manifests.yaml")}
	return []*subject{
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

func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// measure runs all subjects in turns. The first is what the others are compared with.
func measure(ctx context.Context, subjects []*subject, runs int) error {
	for range runs {
		for _, s := range subjects {
			if s.before != nil {
				if err := s.before(); err != nil {
					return err
				}
			}
			cmd := exec.CommandContext(ctx, s.args[0], s.args[1:]...)
			start := time.Now()
			if err := cmd.Run(); err != nil { // what it prints is dropped
				return fmt.Errorf("%s: %w", s.name, err)
			}
			s.seconds = append(s.seconds, time.Since(start).Seconds())
			if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
				s.memory = max(s.memory, usage.Maxrss)
			}
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "COMMAND\tMEDIAN\tRATIO\tPEAK MEMORY")
	for _, s := range subjects {
		fmt.Fprintf(w, "%s\t%.2f s\t%.2f\t%d MiB\n", s.name, median(s.seconds), median(s.seconds)/median(subjects[0].seconds), s.memory>>10)
	}
	return w.Flush()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
