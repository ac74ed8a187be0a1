package checks

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestKatib: an experiment of two trials ends, and its best trial has the smaller loss. The
// algorithms are two that run here, each in a suggestion service of its own.
func TestKatib(t *testing.T) {
	k := needCluster(t)
	k.needKind(t, "experiments.kubeflow.org")
	for _, algorithm := range []string{"random", "sobol"} {
		t.Run(algorithm, func(t *testing.T) { k.experiment(t, algorithm) })
	}
}

func (k kubectl) experiment(t *testing.T, algorithm string) {
	text, err := os.ReadFile("experiment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	name := "check-" + algorithm
	k.replace(t, strings.ReplaceAll(string(text), "ALGORITHM", algorithm), "experiment.kubeflow.org", name)
	k.condition(t, "experiment.kubeflow.org", name, "Succeeded", "Failed")

	type observation struct {
		Metrics []struct{ Name, Min string } `json:"metrics"`
	}
	var e struct {
		Status struct {
			Optimal struct {
				Observation observation `json:"observation"`
			} `json:"currentOptimalTrial"`
		} `json:"status"`
	}
	k.get(t, &e, "experiment.kubeflow.org", "--namespace", userNamespace, name)
	var trials struct {
		Items []struct {
			Spec struct {
				Assignments []struct{ Name, Value string } `json:"parameterAssignments"`
			} `json:"spec"`
			Status struct {
				Observation observation `json:"observation"`
			} `json:"status"`
		} `json:"items"`
	}
	k.get(t, &trials, "trial.kubeflow.org", "--namespace", userNamespace, "--selector", "katib.kubeflow.org/experiment="+name)
	if len(trials.Items) != 2 {
		t.Fatalf("%d trials, want 2", len(trials.Items))
	}
	least := 1.0
	for _, trial := range trials.Items {
		if len(trial.Spec.Assignments) != 1 || len(trial.Status.Observation.Metrics) != 1 {
			t.Fatalf("a trial: %+v", trial)
		}
		given, seen := trial.Spec.Assignments[0].Value, trial.Status.Observation.Metrics[0].Min
		if given != seen {
			t.Errorf("a trial was given %s and observed %s", given, seen)
		}
		loss, err := strconv.ParseFloat(seen, 64)
		if err != nil || loss < 0.1 || loss > 0.9 {
			t.Errorf("loss %q, %v: not in the space that was asked for", seen, err)
		}
		least = min(least, loss)
	}
	if m := e.Status.Optimal.Observation.Metrics; len(m) != 1 {
		t.Errorf("the best trial's metrics: %+v", m)
	} else if best, err := strconv.ParseFloat(m[0].Min, 64); err != nil || best != least {
		t.Errorf("the best trial's loss is %q, %v; want %v", m[0].Min, err, least)
	}
	k.gone(t, "experiment.kubeflow.org", name)
}

// TestTrainJob: a job on two nodes runs to its end, by a runtime as upstream's of PyTorch.
func TestTrainJob(t *testing.T) {
	k := needCluster(t)
	const resource, name = "trainjob.trainer.kubeflow.org", "check"
	k.needKind(t, "trainjobs.trainer.kubeflow.org")
	k.replaceFile(t, "trainjob.yaml", resource, name)
	k.condition(t, resource, name, "Complete", "Failed")
	selector := []string{"--namespace", userNamespace, "--selector", "jobset.sigs.k8s.io/jobset-name=" + name}
	var pods corev1.PodList
	k.get(t, &pods, append([]string{"pod"}, selector...)...)
	if len(pods.Items) != 2 {
		t.Errorf("%d pods, want one for each of two nodes", len(pods.Items))
	}
	ranks := map[string]bool{}
	for _, p := range pods.Items {
		if logs := k.run(t, "logs", "--namespace", userNamespace, p.Name); !strings.Contains(logs, "hello from the lab") {
			t.Errorf("pod %s says %q", p.Name, logs)
		}
		for _, e := range p.Spec.Containers[0].Env {
			if e.Name == "PET_NNODES" && e.Value != "2" {
				t.Errorf("pod %s is one of %s nodes", p.Name, e.Value)
			}
		}
		ranks[p.Labels["batch.kubernetes.io/job-completion-index"]] = true
	}
	if !ranks["0"] || !ranks["1"] {
		t.Errorf("the pods' ranks: %v", ranks)
	}
	k.gone(t, resource, name)
}

// TestSpark: Spark's operator calls spark-submit, which makes the driver's pod; the operator's
// webhook adds to it, and the application ends with it.
func TestSpark(t *testing.T) {
	k := needCluster(t)
	const resource, name = "sparkapplication.sparkoperator.k8s.io", "check"
	k.needKind(t, "sparkapplications.sparkoperator.k8s.io")
	k.replaceFile(t, "spark.yaml", resource, name)
	eventually(t, "the application", func() error {
		var app struct {
			Status struct {
				State struct {
					State   string `json:"state"`
					Message string `json:"errorMessage"`
				} `json:"applicationState"`
			} `json:"status"`
		}
		k.get(t, &app, resource, "--namespace", userNamespace, name)
		switch s := app.Status.State; s.State {
		case "COMPLETED":
			return nil
		case "FAILED", "SUBMISSION_FAILED":
			t.Fatalf("it is %s: %s", s.State, s.Message)
			return nil
		default:
			return fmt.Errorf("it is %q: %s", s.State, s.Message)
		}
	})
	var driver corev1.Pod
	k.get(t, &driver, "pod", "--namespace", userNamespace, name+"-driver")
	if owners := driver.OwnerReferences; len(owners) != 1 || owners[0].Kind != "SparkApplication" {
		t.Errorf("the webhook did not make the application the driver's owner: %+v", owners)
	}
	logs := k.run(t, "logs", "--namespace", userNamespace, driver.Name)
	if !strings.Contains(logs, "stand-in for Spark") || !strings.Contains(logs, "pi.py") {
		t.Errorf("the driver says %q", logs)
	}
	k.gone(t, resource, name)
}
