package registry

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func TestPushAndPull(t *testing.T) {
	w := newWorld(t, nil)
	img := image(t)
	if err := remote.Write(w.ref("a/app/web:v1"), img, from(podA)...); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{podA, podB, hostPod, stranger, noAPI} {
		got, err := remote.Image(w.ref("a/app/web:v1"), from(addr)...)
		if err != nil {
			t.Fatal(addr, err)
		}
		if err := validate.Image(got); err != nil {
			t.Error(addr, err)
		}
	}
	idx, err := random.Index(2000, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(w.ref("a/multi:v1"), idx, from(podA)...); err != nil {
		t.Fatal(err)
	}
	catalog, err := remote.Catalog(t.Context(), w.ref("a/x").Context().Registry, from(podB)...)
	if err != nil || strings.Join(catalog, " ") != "a/app/web a/multi" {
		t.Errorf("catalog %v, %v", catalog, err)
	}
	tags, err := remote.List(w.ref("a/app/web").Context(), from(podB)...)
	if err != nil || strings.Join(tags, " ") != "v1" {
		t.Errorf("tags %v, %v", tags, err)
	}
	if err := remote.Delete(w.ref("a/app/web:v1"), from(podA)...); err != nil {
		t.Error(err)
	}
	if _, err := remote.Image(w.ref("a/app/web:v1"), from(podA)...); err == nil {
		t.Error("a deleted tag is still there")
	}
	for _, want := range []string{"msg=pushed image=a/app/web:v1 by=\"pod a/builder at 127.0.1.7\"", "msg=deleted image=a/app/web:v1"} {
		if !strings.Contains(w.log.String(), want) {
			t.Errorf("log lacks %q:\n%s", want, w.log.String())
		}
	}
}

func TestWhoMayPush(t *testing.T) {
	w := newWorld(t, nil)
	for _, tc := range []struct {
		name, image string
		opts        []remote.Option
		status      int // 0: it may
		code        string
		texts       []string
	}{
		{"own namespace", "a/x:1", from(podA), 0, "", nil},
		{"another namespace", "b/x:1", from(podA), 401, "UNAUTHORIZED", []string{"pushing to b/x refused", "you are pod a/builder at 127.0.1.7", "below a/ only", "pods of namespace b may"}},
		{"a prefix of the namespace", "ab/x:1", from(podA), 401, "UNAUTHORIZED", nil},
		{"host network", "a/x:1", from(hostPod), 401, "UNAUTHORIZED", []string{"127.0.3.7, which is the node or a pod on the node's network", "may read only"}},
		{"stranger", "a/x:1", from(stranger), 401, "UNAUTHORIZED", []string{"no running pod's address"}},
		{"no API server", "a/x:1", from(noAPI), 503, "UNKNOWN", []string{"try again"}},
		{"token", "b/x:1", with(stranger, "token-b"), 0, "", nil},
		{"token over address", "b/x:1", with(podA, "token-b"), 0, "", nil},
		{"token of another namespace", "a/x:1", with(podA, "token-b"), 403, "DENIED", []string{"you are service account b/default at 127.0.1.7", "below b/ only"}},
		{"bearer token", "b/y:1", append(from(stranger), remote.WithAuth(&authn.Bearer{Token: "token-b"})), 0, "", nil},
		{"wrong token", "a/x:1", with(podA, "nonsense"), 401, "UNAUTHORIZED", []string{"no service account's valid token", "a pod needs none"}},
		{"root", "anything/x:1", with(hostPod, rootPassword), 0, "", nil},
		{"the bundle, pod", "docker.io/library/x:1", from(podA), 403, "DENIED", []string{"docker.io/library/x", "nobody changes"}},
		{"the bundle, root", "quay.io/x:1", with(hostPod, rootPassword), 403, "DENIED", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := remote.Write(w.ref(tc.image), image(t), tc.opts...)
			if tc.status == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refused(t, err, tc.status, tc.code, tc.texts...)
		})
	}
	for _, secret := range []string{rootPassword, "token-b", "nonsense"} {
		if strings.Contains(w.log.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}

// No name, header or form makes a pod of a another one, or one that may more.
func TestSpoofed(t *testing.T) {
	w := newWorld(t, nil)
	spoofed := http.Header{
		"X-Forwarded-For": {podB}, "X-Real-Ip": {podB}, "Forwarded": {"for=" + podB}, "X-Forwarded-Host": {"evil.example"},
		"X-Forwarded-Prefix": {"/v2/b"}, "Host": {"evil.example"},
	}
	for _, path := range []string{
		"/v2/b/x/blobs/uploads/", "/v2/b/x/blobs/uploads", "/v2/a/../b/x/blobs/uploads/", "/v2/a/%2e%2e/b/x/blobs/uploads/", "/v2/a%2f..%2fb/x/blobs/uploads/",
		"/v2/a/..%2Fb/x/blobs/uploads/", "/v2//b/x/blobs/uploads/", "/v2/A/x/blobs/uploads/", "/v2/a%2Fx/blobs/uploads/", "/v2/./b/x/blobs/uploads/",
		"/v2/a/x/../../b/x/blobs/uploads/", "/v2/a%00/x/blobs/uploads/", "/v2/a/x%3Fy/blobs/uploads/", "/v2/a%5cb/x/blobs/uploads/", "/v2/a/blobs/uploads/",
		"/v2/b/a/x/blobs/uploads/", "//v2/a/x/blobs/uploads/", "/v2/../v2/b/x/blobs/uploads/", "/V2/a/x/blobs/uploads/",
	} {
		resp, body := w.do(podA, "POST", path, "", spoofed)
		if resp.StatusCode < 400 || resp.Header.Get("Location") != "" {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
	resp, body := w.do(podA, "POST", "/v2/a/x/blobs/uploads/", "", spoofed)
	location := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusAccepted || !strings.HasPrefix(location, "/v2/a/x/blobs/uploads/") {
		t.Fatalf("own namespace: %s %s, location %q", resp.Status, body, location)
	}
	// An upload is of its repository, and of its namespace's pods.
	for _, tc := range []struct{ addr, method, path string }{
		{podB, "PATCH", location}, {podB, "GET", location}, {podB, "DELETE", location},
		{podB, "PUT", strings.Replace(location, "/a/x/", "/b/x/", 1)}, {podA, "PUT", strings.Replace(location, "/a/x/", "/a/y/", 1)},
	} {
		if resp, body := w.do(tc.addr, tc.method, tc.path, "data", nil); resp.StatusCode < 400 {
			t.Errorf("%s %s by %s: %s %s", tc.method, tc.path, tc.addr, resp.Status, body)
		}
	}
	// Nor is a form one that is read for parameters.
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	digest := "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if resp, body := w.do(podA, "PUT", location, "digest="+digest, form); resp.StatusCode < 400 {
		t.Errorf("a digest in a form: %s %s", resp.Status, body)
	}
	// Libraries serve these where they can.
	for _, path := range []string{"/", "/metrics", "/debug/vars", "/debug/health", "/debug/pprof/", "/v2/../debug/vars"} {
		if resp, body := w.do(podA, "GET", path, "", nil); resp.StatusCode != 404 {
			t.Errorf("GET %s: %s %s", path, resp.Status, body)
		}
	}
	for _, path := range []string{"/v2/_catalog", "/v2/a/x/tags/list", "/v2/"} {
		if resp, _ := w.do(podA, "DELETE", path, "", nil); resp.StatusCode < 400 && path != "/v2/" {
			t.Errorf("DELETE %s: %s", path, resp.Status)
		}
	}
}

// Everybody may read everything, so what one namespace has another may name.
func TestMount(t *testing.T) {
	w := newWorld(t, nil)
	img := image(t)
	if err := remote.Write(w.ref("a/x:1"), img, from(podA)...); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	d, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		addr, path string
		status     int
	}{
		{podB, "/v2/b/y/blobs/uploads/?from=a/x&mount=" + d.String(), 201},
		{podB, "/v2/a/y/blobs/uploads/?from=a/x&mount=" + d.String(), 401},
		{podB, "/v2/b/z/blobs/uploads/?from=../a/x&mount=" + d.String(), 202},
		{podB, "/v2/b/z/blobs/uploads/?from=a/none&mount=" + d.String(), 202},
		{podB, "/v2/b/z/blobs/uploads/?from=docker.io/library/x&mount=" + d.String(), 202},
		{podB, "/v2/b/z/blobs/uploads/?from=a/x&mount=sha256:../..", 202},
	} {
		if resp, body := w.do(tc.addr, "POST", tc.path, "", nil); resp.StatusCode != tc.status {
			t.Errorf("%s: %s %s, want %d", tc.path, resp.Status, body, tc.status)
		}
	}
}

func TestManifestNeedsItsBlobs(t *testing.T) {
	w := newWorld(t, nil)
	raw, err := image(t).RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{"Content-Type": {"application/vnd.docker.distribution.manifest.v2+json"}}
	resp, body := w.do(podA, "PUT", "/v2/a/x/manifests/1", string(raw), header)
	if resp.StatusCode != 404 && resp.StatusCode != 400 || !strings.Contains(body, "BLOB_UNKNOWN") {
		t.Errorf("%s %s", resp.Status, body)
	}
	resp, body = w.do(podA, "PUT", "/v2/a/x/manifests/1", strings.Repeat(" ", maxManifest+1), header)
	if resp.StatusCode != 400 || !strings.Contains(body, "MANIFEST_INVALID") {
		t.Errorf("a large manifest: %s %s", resp.Status, body)
	}
	resp, body = w.do(podA, "PUT", "/v2/a/"+strings.Repeat("x", 300)+"/manifests/1", string(raw), header)
	if resp.StatusCode != 400 || !strings.Contains(body, "NAME_INVALID") {
		t.Errorf("a long name: %s %s", resp.Status, body)
	}
	// An index may name images that are not there, and images of no platform.
	index := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":7,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}`
	if resp, body := w.do(podA, "PUT", "/v2/a/x/manifests/2", index, http.Header{"Content-Type": {"application/vnd.oci.image.index.v1+json"}}); resp.StatusCode != 201 {
		t.Errorf("a sparse index: %s %s", resp.Status, body)
	}
}

func TestPing(t *testing.T) {
	w := newWorld(t, nil)
	for _, tc := range []struct {
		auth   string
		status int
	}{{"", 200}, {"Basic Og==", 200}, {"Bearer token-a", 200}, {"Bearer nonsense", 401}, {"Negotiate x", 401}, {"Basic !", 401}} {
		header := http.Header{}
		if tc.auth != "" {
			header.Set("Authorization", tc.auth)
		}
		resp, _ := w.do(stranger, "GET", "/v2/", "", header)
		if resp.StatusCode != tc.status || !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%q: %s, %q", tc.auth, resp.Status, resp.Header.Get("WWW-Authenticate"))
		}
	}
}

func TestBundle(t *testing.T) {
	address := bundleServer(t, "docker.io/library/python:3.12", "registry.example_5000/x:1")
	w := newWorld(t, func(o *Options) { o.Bundle = address })
	for _, n := range []string{"docker.io/library/python:3.12", "docker.io/python:3.12", "index.docker.io/library/python:3.12", "bundle_images/docker.io/library/python:3.12"} {
		img, err := remote.Image(w.ref(n), with(podA, "token-a")...)
		if err != nil {
			t.Error(n, err)
		} else if err := validate.Image(img); err != nil {
			t.Error(n, err)
		}
	}
	_, err := remote.Image(w.ref("docker.io/library/python:3.13"), from(podA)...)
	refused(t, err, 404, "MANIFEST_UNKNOWN", "which has docker.io/library/python:3.12", "images: [docker.io/library/python:3.13]", "appliance.yaml")
	resp, body := w.do(podA, "POST", "/v2/bundle_images/docker.io/x/blobs/uploads/", "", nil)
	if resp.StatusCode != 403 || !strings.Contains(body, "DENIED") {
		t.Errorf("pushing below the prefix: %s %s", resp.Status, body)
	}
	_, err = remote.Image(w.ref("bundle_images/python:3.12"), from(podA)...)
	refused(t, err, 400, "NAME_INVALID")
	_, err = remote.Image(w.ref("ghcr.io/x/y:z"), from(podA)...)
	refused(t, err, 404, "NAME_UNKNOWN", "ghcr.io/x/y:z is not in this appliance", "images: [ghcr.io/x/y:z]")
	img, err := remote.Image(w.ref("docker.io/library/python:3.12"), from(podA)...)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	resp, body = w.do(podA, "GET", "/v2/docker.io/library/python/blobs/"+m.Layers[0].Digest.String(), "", http.Header{"Range": {"bytes=10-19"}})
	if resp.StatusCode != http.StatusPartialContent || len(body) != 10 {
		t.Errorf("a range: %s, %d bytes", resp.Status, len(body))
	}
	if resp, body := w.do(podA, "GET", "/v2/registry.example:5000/x/manifests/1", "", nil); resp.StatusCode != 200 {
		t.Errorf("a host with a port: %s %s", resp.Status, body)
	}
	for _, method := range []string{"PUT", "POST", "PATCH", "DELETE"} {
		if resp, body := w.do(podA, method, "/v2/docker.io/library/python/manifests/3.12", "{}", nil); resp.StatusCode != 403 || !strings.Contains(body, "DENIED") {
			t.Errorf("%s: %s %s", method, resp.Status, body)
		}
	}

	gone := newWorld(t, func(o *Options) { o.Bundle = "http://127.0.0.1:1" })
	_, err = remote.Image(gone.ref("docker.io/library/python:3.12"), from(podA)...)
	refused(t, err, 503, "UNKNOWN", "does not answer")
	for _, address := range []string{"127.0.0.1:5000", "https://127.0.0.1:5000", "http://", ":"} {
		if _, err := New(t.Context(), Options{Dir: t.TempDir(), Bundle: address}); err == nil {
			t.Errorf("the bundle's registry may be at %q", address)
		}
	}
}
