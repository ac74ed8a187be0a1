package gateway

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"atoll/bundle"
	"atoll/test/kubeflow"
)

const (
	user     = "user@example.com"
	password = "made up on the node"
)

// A stackSet is the objects of the stack with a way to sign in.
type stackSet struct {
	auth    string
	objects []*unstructured.Unstructured
}

var rendered sync.Map // auth to []*unstructured.Unstructured

// render returns the stack's objects, with values in its secrets as a node makes them up.
// They are the caller's to change.
func render(t *testing.T, auth string) *stackSet {
	t.Helper()
	if skip != nil {
		t.Skip(skip)
	}
	found, ok := rendered.Load(auth)
	if !ok {
		_, sources := kubeflow.Unpack(t)
		found = objectsOf(t, kubeflow.Plan(t, sources, auth))
		rendered.Store(auth, found)
	}
	s := &stackSet{auth: auth}
	for _, o := range found.([]*unstructured.Unstructured) {
		s.objects = append(s.objects, o.DeepCopy())
	}
	return s
}

func objectsOf(t *testing.T, plan *bundle.Plan) []*unstructured.Unstructured {
	t.Helper()
	var objects []*unstructured.Unstructured
	for _, phase := range plan.Phases {
		decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(phase.Manifest), 4096)
		for {
			o := &unstructured.Unstructured{}
			err := decoder.Decode(o)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(o.Object) > 0 {
				objects = append(objects, o)
			}
		}
	}
	s := &stackSet{objects: objects}
	for i, secret := range plan.Secrets {
		value := fmt.Sprintf("secret-%02d-of-thirty-two-letters", i) + "!"
		if secret.User == user {
			value = password
		}
		for _, key := range secret.Keys {
			text := value
			if key.Hash == "bcrypt" {
				hash, err := bcrypt.GenerateFromPassword([]byte(value), bcrypt.DefaultCost)
				if err != nil {
					t.Fatal(err)
				}
				text = string(hash)
			}
			o := s.find(t, "Secret", key.Namespace, key.Secret)
			if err := unstructured.SetNestedField(o.Object, text, "stringData", key.Key); err != nil {
				t.Fatal(err)
			}
		}
	}
	return objects
}

// find returns the object of a kind and a name.
func (s *stackSet) find(t *testing.T, kind, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	for _, o := range s.objects {
		if o.GetKind() == kind && o.GetNamespace() == namespace && o.GetName() == name {
			return o
		}
	}
	t.Fatalf("the stack has no %s %s/%s", kind, namespace, name)
	return nil
}

// of returns the objects of a kind.
func (s *stackSet) of(kind string) []*unstructured.Unstructured {
	var found []*unstructured.Unstructured
	for _, o := range s.objects {
		if o.GetKind() == kind {
			found = append(found, o)
		}
	}
	return found
}

// text returns a text in an object.
func text(t *testing.T, o *unstructured.Unstructured, fields ...string) string {
	t.Helper()
	value, ok, err := unstructured.NestedString(o.Object, fields...)
	if err != nil || !ok {
		t.Fatalf("%s %s has no %s: %v", o.GetKind(), o.GetName(), strings.Join(fields, "."), err)
	}
	return value
}

// items returns the objects of a list in an object.
func items(o map[string]any, fields ...string) []map[string]any {
	list, _, _ := unstructured.NestedSlice(o, fields...)
	var found []map[string]any
	for _, item := range list {
		if m, ok := item.(map[string]any); ok {
			found = append(found, m)
		}
	}
	return found
}

// values returns what a ConfigMap or a Secret holds.
func values(t *testing.T, o *unstructured.Unstructured) map[string]string {
	t.Helper()
	found, _, _ := unstructured.NestedStringMap(o.Object, "data")
	if o.GetKind() == "Secret" {
		for k, v := range found {
			data, err := base64.StdEncoding.DecodeString(v)
			if err != nil {
				t.Fatalf("Secret %s: %v", o.GetName(), err)
			}
			found[k] = string(data)
		}
		plain, _, _ := unstructured.NestedStringMap(o.Object, "stringData")
		if found == nil {
			found = map[string]string{}
		}
		maps.Copy(found, plain)
	}
	return found
}

// A pod is a program as the stack's manifests start it: its arguments, without its name.
type pod struct {
	args []string
	env  map[string]string
	dir  string
}

// podOf reads the first container of a workload: its arguments, its environment, and its
// files from ConfigMaps, written below dir instead of where they are mounted. All names of
// such places are changed with them.
func (s *stackSet) podOf(t *testing.T, kind, namespace, name, dir string) pod {
	t.Helper()
	spec, _, _ := unstructured.NestedMap(s.find(t, kind, namespace, name).Object, "spec", "template", "spec")
	container := items(spec, "containers")[0]
	var pairs []string
	for _, mount := range items(container, "volumeMounts") {
		path := mount["mountPath"].(string)
		pairs = append(pairs, path, filepath.Join(dir, path))
	}
	places := strings.NewReplacer(pairs...)
	volumes := map[string]string{}
	for _, v := range items(spec, "volumes") {
		if name, ok, _ := unstructured.NestedString(v, "configMap", "name"); ok {
			volumes[v["name"].(string)] = name
		}
	}
	for _, mount := range items(container, "volumeMounts") {
		path := filepath.Join(dir, mount["mountPath"].(string))
		config, ok := volumes[mount["name"].(string)]
		if !ok {
			mustMkdir(t, path)
			continue
		}
		for key, data := range values(t, s.find(t, "ConfigMap", namespace, config)) {
			file := filepath.Join(path, key)
			if sub, ok := mount["subPath"].(string); ok {
				if sub != key {
					continue
				}
				file = path
			}
			mustMkdir(t, filepath.Dir(file))
			if err := os.WriteFile(file, []byte(places.Replace(data)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := pod{env: map[string]string{}, dir: dir}
	command, _, _ := unstructured.NestedStringSlice(container, "command")
	args, _, _ := unstructured.NestedStringSlice(container, "args")
	for _, arg := range append(command[min(1, len(command)):], args...) {
		p.args = append(p.args, places.Replace(arg))
	}
	for _, from := range items(container, "envFrom") {
		for field, kind := range map[string]string{"configMapRef": "ConfigMap", "secretRef": "Secret"} {
			if name, ok, _ := unstructured.NestedString(from, field, "name"); ok {
				for k, v := range values(t, s.find(t, kind, namespace, name)) {
					p.env[k] = places.Replace(v)
				}
			}
		}
	}
	for _, e := range items(container, "env") {
		value, _ := e["value"].(string)
		for field, kind := range map[string]string{"configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret"} {
			if name, ok, _ := unstructured.NestedString(e, "valueFrom", field, "name"); ok {
				key, _, _ := unstructured.NestedString(e, "valueFrom", field, "key")
				value = values(t, s.find(t, kind, namespace, name))[key]
			}
		}
		p.env[e["name"].(string)] = places.Replace(value)
	}
	return p
}

func mustMkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// replace changes a text in a value of an object, which must be there: what the lab needs
// differently.
func replace(t *testing.T, o *unstructured.Unstructured, old, new string, fields ...string) {
	t.Helper()
	before := text(t, o, fields...)
	if !strings.Contains(before, old) {
		t.Fatalf("%s of %s has no %q", strings.Join(fields, "."), o.GetName(), old)
	}
	if err := unstructured.SetNestedField(o.Object, strings.ReplaceAll(before, old, new), fields...); err != nil {
		t.Fatal(err)
	}
}

// encode returns objects as a stream of documents.
func encode(t *testing.T, objects []*unstructured.Unstructured) []byte {
	t.Helper()
	var buf bytes.Buffer
	for _, o := range objects {
		data, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&buf, "---\n%s", data)
	}
	return buf.Bytes()
}
