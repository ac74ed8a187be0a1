// Launcher starts at run time what no manifest names: it reads an image's name
// out of a ConfigMap, makes a Job of it and waits until that succeeded. So do
// Kubeflow's pipelines.
//
//	launcher [-timeout 5m] FILE
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"atoll/test/labimages/internal/kube"

	"go.yaml.in/yaml/v3"
)

// config is the mounted file.
type config struct {
	Job struct {
		Name   string `yaml:"name"`
		Image  string `yaml:"image"`
		Policy string `yaml:"policy"` // imagePullPolicy
	} `yaml:"job"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	timeout := flag.Duration("timeout", 5*time.Minute, "how long the Job may take")
	flag.Parse()
	if err := run(ctx, flag.Arg(0), *timeout); err != nil {
		fmt.Fprintln(os.Stderr, "launcher:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path string, timeout time.Duration) error {
	c, err := readConfig(path)
	if err != nil {
		return err
	}
	client, err := kube.InCluster()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return launch(ctx, client, c, 2*time.Second)
}

func readConfig(path string) (*config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	var c config
	if err := yaml.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("parsing %s: %w", path, err)
	}
	if c.Job.Image == "" {
		return nil, fmt.Errorf("parsing %s: job.image is missing", path)
	}
	if c.Job.Name == "" {
		c.Job.Name = "hello-lab"
	}
	return &c, nil
}

// launch creates the Job, or takes the one that is there, and asks every so often how it is.
func launch(ctx context.Context, client *kube.Client, c *config, every time.Duration) error {
	jobs := "/apis/batch/v1/namespaces/" + client.Namespace + "/jobs"
	last := errors.New("was not asked for yet")
	for {
		done, err := step(ctx, client, jobs, c)
		if done {
			return err
		}
		if err != nil {
			last = err
			fmt.Println(err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for job %s: %w: %w", c.Job.Name, ctx.Err(), last)
		case <-time.After(every):
		}
	}
}

// step goes one step on: it reads the Job, creates it where there is none, and
// says done when it ended. An error that is not done may pass.
func step(ctx context.Context, client *kube.Client, jobs string, c *config) (done bool, err error) {
	var job struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	err = client.Do(ctx, http.MethodGet, jobs+"/"+c.Job.Name, "", nil, &job)
	if kube.IsStatus(err, http.StatusNotFound) {
		err = client.Do(ctx, http.MethodPost, jobs, "application/json", newJob(c), nil)
		if kube.IsStatus(err, http.StatusUnprocessableEntity) {
			return true, err // no later try makes it valid
		}
	}
	if err != nil {
		return false, err
	}
	for _, cond := range job.Status.Conditions {
		switch {
		case cond.Status != "True":
		case cond.Type == "Complete":
			fmt.Printf("job %s with image %s succeeded\n", c.Job.Name, c.Job.Image)
			return true, nil
		case cond.Type == "Failed":
			return true, fmt.Errorf("job %s failed: %s", c.Job.Name, cond.Message)
		}
	}
	return false, nil
}

func newJob(c *config) any {
	type m = map[string]any
	container := m{
		"name": "main", "image": c.Job.Image,
		"securityContext": m{
			"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
			"capabilities": m{"drop": []string{"ALL"}},
		},
	}
	if c.Job.Policy != "" {
		container["imagePullPolicy"] = c.Job.Policy
	}
	return m{
		"apiVersion": "batch/v1", "kind": "Job",
		"metadata": m{"name": c.Job.Name, "labels": m{"app.kubernetes.io/managed-by": "launcher"}},
		"spec": m{
			"backoffLimit": 3,
			"template": m{"spec": m{
				"restartPolicy":                "Never",
				"automountServiceAccountToken": false,
				"securityContext":              m{"runAsNonRoot": true, "seccompProfile": m{"type": "RuntimeDefault"}},
				"containers":                   []any{container},
			}},
		},
	}
}
