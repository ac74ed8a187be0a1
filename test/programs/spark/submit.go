package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

const confDir = "/opt/spark/conf"

// submit makes the driver pod, and what belongs to it: its Service, by which executors would
// find it, and the ConfigMap with its properties. They go when the pod goes.
func submit(ctx context.Context, client kubernetes.Interface, a application) error {
	id := rand.String(16)
	pod, err := a.driver(id)
	if err != nil {
		return err
	}
	core := client.CoreV1()
	if pod, err = core.Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("making the driver: %w", err)
	}
	owned := metav1.ObjectMeta{Namespace: pod.Namespace, OwnerReferences: []metav1.OwnerReference{
		*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod")),
	}}
	properties := &corev1.ConfigMap{ObjectMeta: owned, Data: map[string]string{"spark.properties": a.properties()}}
	properties.Name = confMap(id)
	if _, err := core.ConfigMaps(pod.Namespace).Create(ctx, properties, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("making the driver's properties: %w", err)
	}
	service := &corev1.Service{ObjectMeta: owned, Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: pod.Labels}}
	service.Name = "spark-" + id + "-driver-svc"
	service.Labels, service.Annotations = a.under("spark.kubernetes.driver.service.label."), a.under("spark.kubernetes.driver.service.annotation.")
	for _, p := range driverOf(pod).Ports {
		service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{Name: p.Name, Port: p.ContainerPort, TargetPort: intstr.FromInt32(p.ContainerPort)})
	}
	if _, err := core.Services(pod.Namespace).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("making the driver's service: %w", err)
	}
	fmt.Printf("stand-in for spark-submit: made driver pod %s/%s\n", pod.Namespace, pod.Name)
	return nil
}

func confMap(id string) string { return "spark-drv-" + id + "-conf-map" }

// driver is the pod of the application's driver.
func (a application) driver(id string) (*corev1.Pod, error) {
	image := a.setting("", "spark.kubernetes.driver.container.image", "spark.kubernetes.container.image")
	if image == "" {
		return nil, fmt.Errorf("application %s names no image", a.name)
	}
	mebibytes, err := a.memory()
	if err != nil {
		return nil, err
	}
	memory := *resource.NewQuantity(mebibytes<<20, resource.BinarySI)
	requests, limits := corev1.ResourceList{corev1.ResourceMemory: memory}, corev1.ResourceList{corev1.ResourceMemory: memory}
	if requests[corev1.ResourceCPU], err = resource.ParseQuantity(a.setting("1", "spark.kubernetes.driver.request.cores", "spark.driver.cores")); err != nil {
		return nil, fmt.Errorf("processors of the driver: %w", err)
	}
	if cores := a.conf["spark.kubernetes.driver.limit.cores"]; cores != "" {
		if limits[corev1.ResourceCPU], err = resource.ParseQuantity(cores); err != nil {
			return nil, fmt.Errorf("processors of the driver: %w", err)
		}
	}
	pod, err := a.template()
	if err != nil {
		return nil, err
	}
	pod.Name = a.setting("spark-"+id+"-driver", "spark.kubernetes.driver.pod.name")
	pod.Namespace = a.setting("default", "spark.kubernetes.namespace")
	pod.Labels = merge(pod.Labels, a.under("spark.kubernetes.driver.label."),
		map[string]string{"spark-app-selector": "spark-" + id, "spark-role": "driver", "spark-app-name": a.name})
	pod.Annotations = merge(pod.Annotations, a.under("spark.kubernetes.driver.annotation."))
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod.Spec.NodeSelector = merge(pod.Spec.NodeSelector, a.under("spark.kubernetes.node.selector."))
	if account := a.conf["spark.kubernetes.authenticate.driver.serviceAccountName"]; account != "" {
		pod.Spec.ServiceAccountName = account
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "spark-conf-volume-driver", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: confMap(id)}},
	}})
	args := []string{"driver", "--properties-file", confDir + "/spark.properties"}
	if a.class != "" {
		args = append(args, "--class", a.class)
	}
	c := driverOf(pod)
	c.Image = image
	c.ImagePullPolicy = corev1.PullPolicy(a.setting("IfNotPresent", "spark.kubernetes.container.image.pullPolicy"))
	c.Args = slices.Concat(args, []string{a.file}, a.args)
	c.Ports = append(c.Ports, corev1.ContainerPort{Name: "driver-rpc-port", ContainerPort: 7078},
		corev1.ContainerPort{Name: "blockmanager", ContainerPort: 7079}, corev1.ContainerPort{Name: "spark-ui", ContainerPort: 4040})
	c.Env = append(c.Env, corev1.EnvVar{Name: "SPARK_APPLICATION_ID", Value: "spark-" + id}, corev1.EnvVar{Name: "SPARK_CONF_DIR", Value: confDir},
		corev1.EnvVar{Name: "SPARK_DRIVER_BIND_ADDRESS", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}})
	c.Resources = corev1.ResourceRequirements{Requests: requests, Limits: limits}
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "spark-conf-volume-driver", MountPath: confDir})
	return pod, nil
}

// template is the pod that a file describes, which the driver's is made of; an empty one
// where there is no file.
func (a application) template() (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	path := a.conf["spark.kubernetes.driver.podTemplateFile"]
	if path == "" {
		return pod, nil
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(text, pod)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the driver's template: %w", err)
	}
	return pod, nil
}

// driverOf is the driver's container: the template's of that name, or a new one.
func driverOf(pod *corev1.Pod) *corev1.Container {
	const name = "spark-kubernetes-driver"
	i := slices.IndexFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == name })
	if i < 0 {
		i = len(pod.Spec.Containers)
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name})
	}
	return &pod.Spec.Containers[i]
}

// merge is all that the maps have; the last one wins.
func merge(all ...map[string]string) map[string]string {
	merged := map[string]string{}
	for _, m := range all {
		maps.Copy(merged, m)
	}
	return merged
}

// properties are the settings as a file of Java's.
func (a application) properties() string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(a.conf)) {
		fmt.Fprintf(&b, "%s=%s\n", key, a.conf[key])
	}
	return b.String()
}
