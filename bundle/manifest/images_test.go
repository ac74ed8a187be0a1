package manifest_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"atoll/bundle/manifest"
)

const digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

var component = regexp.MustCompile(`^f\.yaml(, document \d+)?: `)

// found gives reference, tier and places of all images in a stream, one a line.
func found(t *testing.T, stream string) []string {
	t.Helper()
	objs, err := manifest.Parse("f.yaml", []byte(stream))
	if err != nil {
		t.Fatal(err)
	}
	found, err := manifest.Images(objs)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, im := range found.Images {
		for _, w := range im.Where {
			lines = append(lines, fmt.Sprintf("%s %s %s", im.Reference, im.Tier, component.ReplaceAllString(w.String(), "")))
		}
	}
	for _, d := range found.Doubts {
		lines = append(lines, fmt.Sprintf("doubt %q %s", d.Text, component.ReplaceAllString(d.Place.String(), "")))
	}
	return lines
}

func TestImagesInObjects(t *testing.T) {
	for _, tc := range []struct {
		name, yaml string
		want       []string
	}{
		{"pod of every shape", `
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: n}
spec:
  initContainers: [{name: i, image: busybox}]
  containers: [{name: c, image: "reg.example:5000/a/b:1", args: ["--helper=quay.io/x/y:2", --image, "quay.io/x/z:3"], env: [{name: E, value: "ghcr.io/e/f:4"}]}]
  ephemeralContainers: [{name: e, image: "a/b` + digest + `"}]
  volumes: [{name: v, image: {reference: "a/vol:1"}}]
`, []string{
			"docker.io/a/b" + digest + " required Pod n/p spec.ephemeralContainers[0].image",
			"docker.io/a/vol:1 required Pod n/p spec.volumes[0].image.reference",
			"docker.io/library/busybox:latest required Pod n/p spec.initContainers[0].image",
			"ghcr.io/e/f:4 runtime Pod n/p spec.containers[0].env[0].value",
			"quay.io/x/y:2 runtime Pod n/p spec.containers[0].args[0]",
			"quay.io/x/z:3 runtime Pod n/p spec.containers[0].args[2]",
			"reg.example:5000/a/b:1 required Pod n/p spec.containers[0].image",
		}},
		{"cron job in typed list in list", `
apiVersion: v1
kind: List
items:
- apiVersion: batch/v1
  kind: CronJobList
  items: [{metadata: {name: j}, spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: "a/b:1"}]}}}}}}]
`, []string{"docker.io/a/b:1 required CronJob j items[0].items[0].spec.jobTemplate.spec.template.spec.containers[0].image"}},
		{"custom resource", `
apiVersion: x.dev/v1
kind: Runtime
metadata: {name: r}
spec: {deep: {containers: [{image: nginx}]}, image: "org/app"}
`, []string{
			"docker.io/library/nginx:latest runtime Runtime r spec.deep.containers[0].image",
			"docker.io/org/app:latest runtime Runtime r spec.image",
		}},
		{"yaml in json in a config map", `
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data:
  plain: ghcr.io/a/plain:1
  conf.json: '{"agent": {"image": "a/agent:v1"}, "template": "kind: Pod\nspec:\n  containers:\n  - image: redis:7\n"}'
  gone.yaml: |
    # image: a/commented:1
    list: [a/option:1, "${registry}/a/b:1"]
  run.sh: |
    #!/bin/sh
    exec run docker.io/a/script:1, then "a/quoted:2".
`, []string{
			`docker.io/a/agent:v1 runtime ConfigMap c data["conf.json"] > agent.image`,
			`docker.io/a/option:1 runtime ConfigMap c data["gone.yaml"] > list[0]`,
			`docker.io/a/quoted:2 runtime ConfigMap c data["run.sh"]`,
			`docker.io/a/script:1 runtime ConfigMap c data["run.sh"]`,
			`docker.io/library/redis:7 runtime ConfigMap c data["conf.json"] > template > spec.containers[0].image`,
			`ghcr.io/a/plain:1 runtime ConfigMap c data.plain`,
		}},
		{"secret", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {k: " +
			base64.StdEncoding.EncodeToString([]byte("image: a/secret:1\nx: 1\n")) + "}\nstringData: {k: a/open:1}\n",
			[]string{
				"docker.io/a/open:1 runtime Secret s stringData.k",
				"docker.io/a/secret:1 runtime Secret s data.k > image",
			}},
		{"fields and variables that are called image", `
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data:
  cacheImage: ghcr.io/a/untagged
  backgroundImage: assets/sky
  podspec-volumes-image: disabled
  viewer.yaml: |
    image: $VIEWER_IMAGE
    sidecarImage: a/sidecar:1
  injector: |
    {{- if .Values.x }}
        image: busybox:1.28
        "image": 'redis:7',
        image: {{ .Values.image }}
        notimage: host:80
    {{- end }}
env: [{name: APP_IMAGE, value: reg.example/a/app}, {name: OTHER, value: reg.example/a/other}]
`, []string{
			`docker.io/a/sidecar:1 runtime ConfigMap c data["viewer.yaml"] > sidecarImage`,
			`docker.io/library/busybox:1.28 runtime ConfigMap c data.injector`,
			`docker.io/library/redis:7 runtime ConfigMap c data.injector`,
			`ghcr.io/a/untagged:latest runtime ConfigMap c data.cacheImage`,
			`reg.example/a/app:latest runtime ConfigMap c env[0].value`,
			`doubt "assets/sky" ConfigMap c data.backgroundImage`,
			`doubt "disabled" ConfigMap c data.podspec-volumes-image`,
		}},
		{"composed", `
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-sidecar-injector, namespace: istio-system}
data: {values: '{"global": {"hub": "gcr.io/istio-release", "tag": "1.29.0", "variant": "distroless", "proxy": {"image": "proxyv2"}}}'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: inferenceservice-config}
data: {explainers: '{"art": {"image": "kserve/art-explainer", "defaultImageVersion": "v0.16"}}'}
---
apiVersion: x.dev/v1
kind: Operator
metadata: {name: o}
spec:
  image: {repository: a/operator, tag: v1, registry: reg.example}
  numbered: {repository: a/numbered, tag: 7}
  float: {repository: a/float, tag: 1.10}
  git: {repository: "https://git.example/a/b", tag: v1}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kubeflow-pipelines-profile-controller-code-abc, namespace: kubeflow}
data: {sync.py: 'image = os.environ.get("FRONTEND_IMAGE", "ghcr.io/kubeflow/kfp-frontend")'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: pipeline-install-config, namespace: kubeflow}
data: {appVersion: 2.16.0}
`, []string{
			`docker.io/a/numbered:7 runtime Operator o spec.numbered (repository and tag)`,
			`docker.io/kserve/art-explainer:v0.16 runtime ConfigMap inferenceservice-config data.explainers > art (name and version)`,
			`gcr.io/istio-release/proxyv2:1.29.0-distroless runtime ConfigMap istio-system/istio-sidecar-injector data.values (Istio's sidecar)`,
			`ghcr.io/kubeflow/kfp-frontend:2.16.0 runtime ConfigMap kubeflow/kubeflow-pipelines-profile-controller-code-abc data["sync.py"] (KFP's artifact proxy)`,
			`reg.example/a/operator:v1 runtime Operator o spec.image (repository and tag)`,
		}},
		{"rule that no longer fits", `
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-sidecar-injector, namespace: istio-system}
data: {values: '{"global": {"hub": "gcr.io/istio-release", "proxy": {"image": "proxyv2"}}}'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kubeflow-pipelines-profile-controller-code-abc, namespace: kubeflow}
data: {sync.py: 'print("rewritten")'}
`, []string{
			`doubt "proxyv2" ConfigMap istio-system/istio-sidecar-injector data.values > global.proxy.image`,
			`doubt "{global.hub}/{global.proxy.image}:{global.tag}[-{global.variant}] (no global.tag)" ConfigMap istio-system/istio-sidecar-injector data.values (Istio's sidecar)`,
			`doubt "\"FRONTEND_IMAGE\",\\s*\"(?P<image>[^\"]+)\"" ConfigMap kubeflow/kubeflow-pipelines-profile-controller-code-abc data["sync.py"] (KFP's artifact proxy)`,
		}},
		{"pod's image that is no reference", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{image: team/App:1}, {image: IMAGE_URL}]}\n",
			[]string{`doubt "IMAGE_URL" Pod p spec.containers[1].image`, `doubt "team/App:1" Pod p spec.containers[0].image`}},
		{"definition: only defaults", `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: d}
spec:
  description: for example ghcr.io/a/doc:1
  image: {type: string, default: "a/default:1"}
  containers: [{image: a/never:1}]
`, []string{"docker.io/a/default:1 runtime CustomResourceDefinition d spec.image.default"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := found(t, tc.yaml)
			slices.Sort(got)
			if slices.Sort(tc.want); !slices.Equal(got, tc.want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

// TestImagesInText lists what a string may hold.
func TestImagesInText(t *testing.T) {
	const nothing = ""
	for text, want := range map[string]string{
		"quay.io/a/b:1":                     "quay.io/a/b:1",
		"a/b:1":                             "docker.io/a/b:1",
		"registry-1.docker.io/a/b:1":        "docker.io/a/b:1",
		"localhost:5000/b:1":                "localhost:5000/b:1",
		"busybox" + digest:                  "docker.io/library/busybox" + digest,
		"a/b:1" + digest:                    "docker.io/a/b:1" + digest,
		"--x=a/b:1,other":                   "docker.io/a/b:1",
		"see a/b:1.":                        "docker.io/a/b:1",
		"[a/b:1]":                           "docker.io/a/b:1",
		"a/b:V1.0_rc.2-x":                   "docker.io/a/b:V1.0_rc.2-x",
		"a/b":                               nothing,
		"busybox:1.28":                      nothing, // in free text a word and a number are no image
		"https://reg.example/a/b:1":         nothing,
		"http://host:8080/a":                nothing,
		"git@host.example:a/b:1":            nothing,
		"/var/lib/x:ro":                     nothing,
		"${HUB}/a:1":                        nothing,
		"a/b:${TAG}":                        nothing,
		"a/b:{{.Tag}}":                      nothing,
		"10/12:30":                          nothing,
		"host/path:8080/x":                  nothing,
		"a/b@sha256:short":                  nothing,
		"sha256:" + strings.Repeat("a", 64): nothing,
		strings.Repeat("a/", 200) + "b:1":   nothing, // too long for a repository
		"a/b:" + strings.Repeat("t", 129):   nothing,
		"arn:aws:s3/b:1":                    nothing,
		"\xff\xfea/b:1\x00":                 "docker.io/a/b:1",
		"xn--e1afmkfd.example/a/b:1 and d.e/f:g ": "xn--e1afmkfd.example/a/b:1 d.e/f:g",
	} {
		objs := []manifest.Object{{Source: "x", Value: map[string]any{"kind": "X", "text": text}}}
		found, err := manifest.Images(objs)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var got []string
		for _, im := range found.Images {
			got = append(got, im.Reference)
		}
		wanted := strings.Fields(want)
		slices.Sort(wanted)
		if !slices.Equal(got, wanted) {
			t.Errorf("%q: got %q, want %q", text, got, wanted)
		}
	}
}

// TestParseStreams reads every legal separator, with both kinds of line ends.
func TestParseStreams(t *testing.T) {
	stream := "# only a comment\n---\n---   # a comment\nkind: X\ni: a/a:1\n--- {kind: X, i: 'a/b:1'}\n...\n---\nkind: ConfigMap\ndata:\n" +
		"  inner.yaml: |\n    i: a/c:1\n    ---\n    i: a/d:1\n  cert.pem: |\n    ---BEGIN---\n    ---\n---\nkind: X\ni: a/e:1"
	want := map[string]bool{"docker.io/a/a:1": true, "docker.io/a/b:1": true, "docker.io/a/c:1": true, "docker.io/a/d:1": true, "docker.io/a/e:1": true}
	for name, s := range map[string]string{"LF": stream, "CRLF": strings.ReplaceAll(stream, "\n", "\r\n")} {
		got := map[string]bool{}
		for _, line := range found(t, s) {
			got[strings.Fields(line)[0]] = true
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: got %q", name, slices.Sorted(maps.Keys(got)))
		}
	}
}
