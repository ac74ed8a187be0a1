package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// operator is the command line of Spark's operator 2.5.0 for upstream's example.
var operator = []string{
	"--master", "k8s://https://10.43.0.1:443", "--deploy-mode", "cluster", "--class", "org.example.Pi", "--name", "pi",
	"--conf", "spark.kubernetes.namespace=user", "--conf", "spark.kubernetes.container.image=docker.io/library/spark:3.5.2",
	"--conf", "spark.kubernetes.container.image.pullPolicy=Always",
	"--conf", "spark.kubernetes.submission.waitAppCompletion=false", "--conf", "spark.kubernetes.driver.pod.name=pi-driver",
	"--conf", "spark.kubernetes.driver.label.sparkoperator.k8s.io/app-name=pi", "--conf", "spark.kubernetes.driver.annotation.a=b=c",
	"--conf", "spark.driver.cores=1", "--conf", "spark.driver.memory=512m",
	"--conf", "spark.kubernetes.authenticate.driver.serviceAccountName=default-editor",
	"local:///opt/spark/pi.py", "--partitions", "2",
}

func TestDriver(t *testing.T) {
	template := filepath.Join(t.TempDir(), "driver.yaml")
	text := "metadata: {labels: {team: red}, ownerReferences: [{kind: SparkApplication, name: pi}]}\nspec: {containers: [{name: beside}, {name: spark-kubernetes-driver}]}\n"
	if err := os.WriteFile(template, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := parse(append([]string{"--conf", "spark.kubernetes.driver.podTemplateFile=" + template}, operator...))
	if err != nil {
		t.Fatal(err)
	}
	pod, err := a.driver("0")
	if err != nil {
		t.Fatal(err)
	}
	if len(pod.Spec.Containers) != 2 || len(pod.OwnerReferences) != 1 {
		t.Fatalf("the template is not in %+v", pod)
	}
	c := pod.Spec.Containers[1]
	memory := c.Resources.Limits[corev1.ResourceMemory]
	for what, pair := range map[string][2]string{
		"name":         {pod.Namespace + "/" + pod.Name, "user/pi-driver"},
		"label":        {pod.Labels["team"], "red"},
		"role":         {pod.Labels["spark-role"], "driver"},
		"application":  {pod.Labels["sparkoperator.k8s.io/app-name"], "pi"},
		"annotation":   {pod.Annotations["a"], "b=c"},
		"account":      {pod.Spec.ServiceAccountName, "default-editor"},
		"image":        {c.Image, "docker.io/library/spark:3.5.2"},
		"pull":         {string(c.ImagePullPolicy), "Always"},
		"memory":       {memory.String(), "896Mi"},
		"command line": {strings.Join(c.Args, " "), "driver --properties-file /opt/spark/conf/spark.properties --class org.example.Pi local:///opt/spark/pi.py --partitions 2"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %q, want %q", what, pair[0], pair[1])
		}
	}
	if p := a.properties(); !strings.Contains(p, "spark.driver.memory=512m\n") {
		t.Errorf("properties: %s", p)
	}
}

func TestRefused(t *testing.T) {
	for args, want := range map[string]string{
		"--master yarn a.py":        "not Kubernetes",
		"--deploy-mode client a.py": "only cluster",
		"--verbose yes a.py":        "not known",
		"--conf spark.a a.py":       "not KEY=VALUE",
		"--name":                    "no value",
		"--name pi":                 "no file",
		"--conf spark.kubernetes.container.image=a --conf spark.kubernetes.driver.podTemplateFile=/nowhere a.py": "template",
		"a.py": "names no image",
		"--conf spark.kubernetes.container.image=a --conf spark.driver.memory=lots a.py": "no size",
		"--conf spark.kubernetes.container.image=a --conf spark.driver.cores=few a.py":   "processors",
	} {
		a, err := parse(strings.Fields(args))
		if err == nil {
			_, err = a.driver("0")
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}
