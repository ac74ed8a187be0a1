package main

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"atoll/bundle"
	"atoll/bundle/stack"
)

// TestKanikoTemplate holds the template of a build against the node's registry: it has to
// be filled in with what nobody else knows, and with nothing else.
func TestKanikoTemplate(t *testing.T) {
	s, err := stack.Load("kubeflow")
	if err != nil {
		t.Fatal(err)
	}
	data, err := fs.ReadFile(s.FS, "kaniko/job.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var job batchv1.Job
	if err := yaml.UnmarshalStrict(data, &job); err != nil {
		t.Fatal(err)
	}
	c := job.Spec.Template.Spec.Containers[0]
	if c.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError {
		t.Errorf("a failed build's pod has no end of its log: terminationMessagePolicy is %q", c.TerminationMessagePolicy)
	}
	values := map[string]string{}
	for _, e := range c.Env { // Kubernetes expands what stands before
		for name, value := range values {
			e.Value = strings.ReplaceAll(e.Value, "$("+name+")", value)
		}
		if e.ValueFrom != nil && e.ValueFrom.FieldRef.FieldPath == "metadata.namespace" {
			e.Value = "team"
		}
		values[e.Name] = e.Value
	}
	args := strings.Join(c.Args, "\n")
	for name, value := range values {
		args = strings.ReplaceAll(args, "$("+name+")", value)
	}
	for _, want := range []string{"--destination=" + bundle.NodeRegistry + "/team/NAME:TAG", "--skip-default-registry-fallback"} {
		if !strings.Contains(args, want) {
			t.Errorf("arguments lack %q:\n%s", want, args)
		}
	}
	hosts := map[string]bool{}
	for pair := range strings.SplitSeq(values["KANIKO_REGISTRY_MAP"], ";") {
		from, to, _ := strings.Cut(pair, "=")
		host := strings.TrimPrefix(from, "index.")
		if to != bundle.NodeRegistry+"/"+bundle.BundlePrefix+"/"+host {
			t.Errorf("%s is mapped to %q", from, to)
		}
		hosts[from] = true
	}
	for _, host := range []string{"index.docker.io", "gcr.io", "ghcr.io", "nvcr.io", "quay.io", "registry.k8s.io"} {
		if !hosts[host] {
			t.Errorf("base images of %s do not come from the appliance", host)
		}
	}
	if got := strings.Join(placeholders(t, &job), " "); got != "FOLDER NAME NOTEBOOK TAG" {
		t.Errorf("to be filled in: %s", got)
	}
	job.Spec.Template.Spec.Containers[0].Args = append(c.Args, "--registry-mirror=HOST")
	if !slices.Contains(placeholders(t, &job), "HOST") {
		t.Error("what is to be filled in among the arguments is not found")
	}
}

// capitals are what the template's reader is to fill in.
var capitals = regexp.MustCompile(`\b[A-Z][A-Z_]{2,}\b`)

// placeholders returns the words in capitals of all keys and values of a Job, but for the
// names of its environment.
func placeholders(t *testing.T, template *batchv1.Job) []string {
	t.Helper()
	job := template.DeepCopy()
	for i := range job.Spec.Template.Spec.Containers {
		c := &job.Spec.Template.Spec.Containers[i]
		for n := range c.Env {
			name := "$(" + c.Env[n].Name + ")"
			for m := range c.Env {
				c.Env[m].Value = strings.ReplaceAll(c.Env[m].Value, name, "")
			}
			for m := range c.Args {
				c.Args[m] = strings.ReplaceAll(c.Args[m], name, "")
			}
		}
		for n := range c.Env {
			c.Env[n].Name = ""
		}
	}
	text, err := yaml.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	found := capitals.FindAllString(string(text), -1)
	slices.Sort(found)
	return slices.Compact(found)
}
