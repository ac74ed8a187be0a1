package manifest_test

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"atoll/bundle"
	"atoll/bundle/manifest"
	"atoll/bundle/stack"
)

// published are the secrets in upstream's manifests, in clear and in base64: Dex's password
// hash, the OIDC client's, the cookies', the object store's.
var published = regexp.MustCompile(`4K/VkmDd1q1Orb3xAt82zu8gk7Ad6ReFR4LCP9UeYE90NLiN9Df72|JDJ5JDEyJDRLL1ZrbURkMXExT3JiM3hBdDgyenU4|` +
	`pUBnBOY80SnXgjibTYM9ZWNzY2xreNGQok|cFVCbkJPWTgwU25YZ2ppYlRZTTlaV056WTJ4cmVOR1Fvaw|` +
	`7d16fee92f8d11b8940b081b3f8b8acb|N2QxNmZlZTkyZjhkMTFiODk0MGIwODFiM2Y4YjhhY2I|minio123|bWluaW8xMjM`)

// TestKubeflowStack makes the plan of each way to sign in. Whatever in stack.yaml has gone
// stale is an error of Plan; what only one way has is looked at here.
func TestKubeflowStack(t *testing.T) {
	sources := sourcesOf(t)
	s, err := stack.Load("kubeflow")
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	keys := map[bundle.SecretKey]bool{}
	for _, secret := range s.Secrets {
		for _, k := range secret.Keys {
			keys[k] = true
		}
	}
	for _, tc := range []struct {
		def     bundle.Definition
		objects int
		has     string
		hasNot  []string
	}{
		{bundle.Definition{}, 666, "oidc-authservice", []string{"oauth2-proxy/oauth2-proxy", "namespace: oauth2-proxy", "huggingfaceserver:v0.16.0-gpu", "jupyter-pytorch-cuda-full"}},
		{bundle.Definition{Auth: "oauth2-proxy"}, 669, "oauth2-proxy", []string{"oidc-authservice:"}},
		{bundle.Definition{IncludeImages: []string{"*"}}, 674, "jupyter-pytorch-cuda-full", nil},
		{bundle.Definition{Without: []string{"katib", "spark-operator", "kaniko"}}, 0, "oidc-authservice", []string{"suggestion-", "spark-operator/controller", "osscontainertools"}},
	} {
		p, found, err := manifest.Plan(t.Context(), manifest.Input{Stack: s, Definition: &tc.def, Sources: sources, Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Doubts) > 0 {
			t.Errorf("%+v: doubts: %v", tc.def, found.Doubts)
		}
		if n := len(planObjects(t, p)); tc.objects > 0 && n != tc.objects {
			t.Errorf("%+v: %d objects, want %d", tc.def, n, tc.objects)
		}
		text := encode(t, p)
		if at := published.FindIndex(text); at != nil {
			t.Errorf("%+v: a published secret is in the plan: %s", tc.def, text[max(0, at[0]-200):at[1]])
		}
		if !bytes.Contains(text, []byte(tc.has)) {
			t.Errorf("%+v: the plan has no %s", tc.def, tc.has)
		}
		for _, not := range tc.hasNot {
			if i := bytes.Index(text, []byte(not)); i >= 0 {
				t.Errorf("%+v: the plan has %s: %s", tc.def, not, text[max(0, i-100):i+100])
			}
		}
		for _, secret := range p.Secrets {
			for _, k := range secret.Keys {
				delete(keys, k)
			}
		}
		// Knative asks none of them for a digest.
		const knative = "registries-skipping-tag-resolving: kind.local,ko.local,dev.local,docker.io,gcr.io,ghcr.io,index.docker.io,"
		if !bytes.Contains(text, []byte(knative)) {
			t.Errorf("%+v: the plan has no %s", tc.def, knative)
		}
		if len(tc.def.Without) == 0 {
			checkList(t, found)
		}
	}
	for k := range keys {
		t.Errorf("no way to sign in has Secret %s/%s", k.Namespace, k.Secret)
	}
}

// checkList holds the stack's images against the list of upstream's: our overlays replace
// some, and nothing else may be missing.
func checkList(t *testing.T, found *manifest.Findings) {
	t.Helper()
	list, err := os.ReadFile(upstream + "images-26.03.tsv")
	if err != nil {
		t.Fatal(err)
	}
	replaced := []string{
		"gcr.io/istio-release/install-cni:1.28.0", "gcr.io/istio-release/pilot:1.28.0", "gcr.io/istio-release/proxyv2:1.28.0", // by 1.29.0
		"quay.io/oauth2-proxy/oauth2-proxy:v7.14.3", // in one way to sign in
	}
	for line := range bytes.Lines(list) {
		ref, _, _ := strings.Cut(string(line), "\t")
		if !slices.ContainsFunc(found.Images, func(im manifest.Image) bool { return im.Reference == ref }) && !slices.Contains(replaced, ref) {
			t.Errorf("%s is not among the stack's images", ref)
		}
	}
}
