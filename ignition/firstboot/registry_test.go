package firstboot_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"atoll/bundle"
	"atoll/bundle/bundletest"
	"atoll/ignition/firstboot"
)

// lab serves a bundle with every kind of image.
func lab(t *testing.T) (*bundle.Bundle, *httptest.Server, *bytes.Buffer) {
	t.Helper()
	f := bundletest.New(t)
	f.Lab(t)
	b, err := bundle.Open(f.Pack(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	var log bytes.Buffer
	server := httptest.NewServer(firstboot.NewRegistry(b, &firstboot.Options{Status: filepath.Join(t.TempDir(), "status.json"), Log: slog.New(slog.NewTextHandler(&log, nil))}))
	t.Cleanup(server.Close)
	return b, server, &log
}

// viaMirror asks as containerd asks a mirror: the upstream's host in ns, the mirror's
// in the URL.
type viaMirror struct{ mirror string }

func (v viaMirror) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	q := req.URL.Query()
	q.Set("ns", req.URL.Host)
	req.URL.RawQuery, req.URL.Scheme, req.URL.Host = q.Encode(), "http", v.mirror
	return http.DefaultTransport.RoundTrip(req)
}

// Every image can be pulled under its name with go-containerregistry, whole for the
// platform and with the digest that was locked.
func TestPullEveryImage(t *testing.T) {
	b, server, log := lab(t)
	mirror := remote.WithTransport(viaMirror{strings.TrimPrefix(server.URL, "http://")})
	for _, im := range b.Images() {
		for _, s := range []string{im.Name, im.RefName} {
			ref, err := name.ParseReference(s)
			if err != nil {
				t.Fatal(err)
			}
			head, err := remote.Head(ref, mirror)
			if err != nil {
				t.Errorf("HEAD %s: %v", s, err)
				continue
			}
			got, err := remote.Get(ref, mirror)
			if err != nil {
				t.Errorf("GET %s: %v", s, err)
				continue
			}
			if head.Digest != im.Digest || got.Digest != im.Digest || got.MediaType != im.MediaType || got.Size != head.Size {
				t.Errorf("%s: HEAD says %+v, GET %+v, locked %s", s, head, got.Descriptor, im.Digest)
			}
		}
		ref, err := name.ParseReference(im.Name)
		if err != nil {
			t.Fatal(err)
		}
		img, err := remote.Image(ref.Context().Digest(im.Manifest.String()), mirror)
		if err != nil {
			t.Errorf("%s: %v", im.Name, err)
			continue
		}
		if err := readWhole(img); err != nil {
			t.Errorf("%s: %v", im.Name, err)
		}
	}
	if log.Len() > 0 {
		t.Errorf("log tells of: %s", log)
	}
}

// readWhole reads config and layers; the client compares them with their digests.
func readWhole(img v1.Image) error {
	if _, err := img.RawConfigFile(); err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
	}
	return nil
}

func TestRequests(t *testing.T) {
	b, server, log := lab(t)
	images := map[string]bundle.Image{}
	layers := map[string]v1.Descriptor{}
	for _, im := range b.Images() {
		short, _, _ := strings.Cut(im.Name, "@")
		images[short] = im
		all, err := b.Contents(im)
		if err != nil {
			t.Fatal(err)
		}
		layers[short] = all[len(all)-1]
		for _, d := range all {
			if d.MediaType.IsLayer() {
				layers[short] = d
			}
		}
	}
	app, pinned, both, box := images["registry.example:5000/org/app:1"], images["quay.io/org/pinned"], images["ghcr.io/org/both:v2"], images["docker.io/library/busybox:1.28"]
	layer := layers["docker.io/library/busybox:1.28"]
	blob := "/v2/library/busybox/blobs/" + layer.Digest.String() + "?ns=docker.io"
	absent := bundle.DigestOf([]byte("absent")).String()
	manifest := "/v2/library/busybox/manifests/1.28"
	n := layer.Size
	for _, test := range []struct {
		method, path, ranges string
		status               int
		want                 string // in the body, or as a header NAME: VALUE
	}{
		{"GET", "/v2/", "", 200, ""},
		{"HEAD", "/v2/", "", 200, ""},
		// The names of one repository.
		{"GET", manifest + "?ns=docker.io", "", 200, "Docker-Content-Digest: " + box.Digest.String()},
		{"GET", manifest + "?ns=index.docker.io", "", 200, "Docker-Content-Digest: " + box.Digest.String()},
		{"GET", manifest + "?ns=registry-1.docker.io", "", 200, "Docker-Content-Digest: " + box.Digest.String()},
		{"GET", "/v2/busybox/manifests/1.28?ns=docker.io", "", 200, "Docker-Content-Digest: " + box.Digest.String()},
		{"GET", "/v2/docker.io/library/busybox/manifests/1.28", "", 200, "Docker-Content-Digest: " + box.Digest.String()},
		{"GET", "/v2/docker.io/library/busybox/manifests/1.28?ns=127.0.0.1:5000", "", 200, "Docker-Content-Digest: " + box.Digest.String()},
		{"GET", manifest, "", 200, "Docker-Content-Digest: " + box.Digest.String()},
		{"HEAD", "/v2/org/app/manifests/latest?ns=registry.example:5000", "", 200, "Docker-Content-Digest: " + app.Digest.String()},
		{"HEAD", "/v2/org/app/manifests/latest?ns=registry.example:5000", "", 200, "Content-Type: application/vnd.oci.image.index.v1+json"},
		{"HEAD", "/v2/quay.io/org/pinned/manifests/" + pinned.Digest.String(), "", 200, "Docker-Content-Digest: " + pinned.Digest.String()},
		{"HEAD", "/v2/quay.io/org/pinned/manifests/sha256-" + pinned.Digest.Hex[:12], "", 200, "Docker-Content-Digest: " + pinned.Digest.String()},
		{"HEAD", "/v2/ghcr.io/org/both/manifests/" + both.Digest.String(), "", 200, "Docker-Content-Digest: " + both.Digest.String()},
		{"HEAD", "/v2/ghcr.io/org/both/manifests/v2", "", 404, ""}, // was pinned: only the digest is known
		// What is not there.
		{"GET", "/v2/org/app/manifests/1?ns=quay.io", "", 404, "NAME_UNKNOWN"},
		{"GET", "/v2/org/app/manifests/1", "", 404, "NAME_UNKNOWN"},
		{"GET", "/v2/library/busybox/manifests/1.29?ns=docker.io", "", 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/library/busybox/manifests/" + absent, "", 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/library/busybox/manifests/" + app.Digest.String(), "", 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/library/busybox/manifests/" + layer.Digest.String(), "", 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/library/busybox/blobs/" + absent, "", 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/library/busybox/blobs/" + layers["quay.io/org/pinned"].Digest.String(), "", 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/UPPER/manifests/1", "", 400, "NAME_INVALID"},
		{"GET", "/v2/library/busybox/blobs/sha256:12", "", 400, "DIGEST_INVALID"},
		{"GET", "/v2/library/busybox/referrers/" + box.Digest.String(), "", 404, ""},
		{"GET", "/etc/passwd", "", 404, ""},
		// Blobs and ranges.
		{"HEAD", blob, "", 200, fmt.Sprintf("Content-Length: %d", n)},
		{"GET", blob, "", 200, "Content-Type: application/octet-stream"},
		{"GET", blob, "bytes=0-0", 206, fmt.Sprintf("Content-Range: bytes 0-0/%d", n)},
		{"GET", blob, "bytes=5-", 206, fmt.Sprintf("Content-Range: bytes 5-%d/%d", n-1, n)},
		{"GET", blob, "bytes=5-100000", 206, fmt.Sprintf("Content-Range: bytes 5-%d/%d", n-1, n)},
		{"GET", blob, fmt.Sprintf("bytes=%d-", n), 416, ""},
		{"GET", blob, "bytes=100000-100001", 416, ""},
		{"GET", blob, "bytes=-5", 200, ""},
		{"GET", blob, "bytes=0-0,2-2", 200, ""},
		{"GET", blob, "bytes=0-9223372036854775807", 200, ""},
		{"GET", blob, "lines=1-2", 200, ""},
		// Lists.
		{"GET", "/v2/_catalog", "", 200, `"docker.io/library/busybox"`},
		{"GET", "/v2/org/app/tags/list?ns=registry.example:5000", "", 200, `["1","latest"]`},
		{"GET", "/v2/org/app/tags/list?ns=registry.example:5000&n=1", "", 200, `["1"]`},
		{"GET", "/v2/org/app/tags/list", "", 404, "NAME_UNKNOWN"},
		// Writing.
		{"POST", "/v2/library/busybox/blobs/uploads/", "", 405, "UNSUPPORTED"},
		{"PUT", manifest, "", 405, "Allow: GET, HEAD"},
		{"DELETE", manifest, "", 405, "UNSUPPORTED"},
		{"PATCH", "/v2/", "", 405, "UNSUPPORTED"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if test.ranges != "" {
			req.Header.Set("Range", test.ranges)
		}
		log.Reset()
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		what := fmt.Sprintf("%s %s %s: %s %q", test.method, test.path, test.ranges, resp.Status, body[:min(len(body), 200)])
		if err != nil || resp.StatusCode != test.status {
			t.Errorf("%s (%v), want %d", what, err, test.status)
		}
		if key, value, ok := strings.Cut(test.want, ": "); ok && resp.Header.Get(key) != value {
			t.Errorf("%s: %s is %q, want %q", what, key, resp.Header.Get(key), value)
		} else if !ok && !bytes.Contains(body, []byte(test.want)) {
			t.Errorf("%s lacks %s", what, test.want)
		}
		if test.status == 404 && !strings.Contains(log.String(), "not served") {
			t.Errorf("%s: log says %q", what, log)
		}
	}
}

func TestRange(t *testing.T) {
	b, server, _ := lab(t)
	for _, im := range b.Images() {
		all, err := b.Contents(im)
		if err != nil {
			t.Fatal(err)
		}
		d := all[len(all)-1]
		r, _ := b.Blob(d.Digest)
		want, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		host, repo, _, _, err := bundle.SplitReference(im.Name)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/v2/"+repo+"/blobs/"+d.Digest.String()+"?ns="+host, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", "bytes=7-20")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, want[7:21]) {
			t.Errorf("%s: got %q, want %q (%v)", im.Name, got, want[7:21], err)
		}
	}
}

// The bundle that was opened is served, even if another takes its path.
func TestServesOpenedFile(t *testing.T) {
	b, server, _ := lab(t)
	if err := bundle.WriteFile(b.Path(), func(f *os.File) error { return nil }); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(server.URL + "/v2/library/busybox/manifests/1.28")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if data, err := io.ReadAll(resp.Body); err != nil || bundle.DigestOf(data).String() != resp.Header.Get("Docker-Content-Digest") {
		t.Errorf("%s: %q %v", resp.Status, data, err)
	}
}

// fromRecorder tells whether a body came by ReadFrom, the way to sendfile.
type fromRecorder struct {
	http.ResponseWriter
	from bool
}

func (r *fromRecorder) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	if ok {
		_, r.from = limited.R.(*os.File)
	}
	return io.Copy(struct{ io.Writer }{r.ResponseWriter}, src)
}

func TestSendfile(t *testing.T) {
	b, _, _ := lab(t)
	im := b.Images()[0]
	all, err := b.Contents(im)
	if err != nil {
		t.Fatal(err)
	}
	host, repo, _, _, err := bundle.SplitReference(im.Name)
	if err != nil {
		t.Fatal(err)
	}
	w := &fromRecorder{ResponseWriter: httptest.NewRecorder()}
	firstboot.NewRegistry(b, nil).ServeHTTP(w, httptest.NewRequest("GET", "/v2/"+host+"/"+repo+"/blobs/"+all[1].Digest.String(), nil))
	if !w.from {
		t.Error("blob was not given to ReadFrom as a file")
	}
}

// need skips the test if a foreign tool is missing.
func need(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Skip("no", tool)
	}
}

func run(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// skopeo reads the bundle as an archive, each image by its name in the index.
func TestSkopeo(t *testing.T) {
	need(t, "skopeo")
	b, _, _ := lab(t)
	for _, im := range b.Images() {
		// In a layout skopeo 1.9 looks for OCI's media types only, and not for an index in an index.
		if strings.HasPrefix(string(im.MediaType), "application/vnd.docker.") || im.RefName == "ghcr.io/org/nested:1" {
			continue
		}
		dir := filepath.Join(t.TempDir(), "out")
		run(t, "skopeo", "copy", "--override-os=linux", "--override-arch=amd64", "oci-archive:"+b.Path()+":"+im.RefName, "oci:"+dir)
		var index v1.IndexManifest
		data, err := os.ReadFile(filepath.Join(dir, "index.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &index); err != nil {
			t.Fatal(err)
		}
		if got := index.Manifests[0].Digest; got != im.Manifest {
			t.Errorf("%s: skopeo copied %s, want %s", im.Name, got, im.Manifest)
		}
	}
}

// containerd starts a containerd that asks only the server, and gives ctr's arguments.
func containerd(t *testing.T, hosts map[string]string) func(args ...string) []byte {
	t.Helper()
	need(t, "containerd")
	need(t, "ctr")
	if os.Geteuid() != 0 {
		t.Skip("containerd needs root")
	}
	dir := t.TempDir()
	for host, url := range hosts {
		if err := os.MkdirAll(filepath.Join(dir, "hosts", host), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "hosts", host, "hosts.toml"), fmt.Appendf(nil, "server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", url, url), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
		dir+"/root", dir+"/state", dir+"/sock")
	if err := os.WriteFile(dir+"/config.toml", []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("containerd", "--log-level", "warn", "--config", dir+"/config.toml")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			data, _ := os.ReadFile(dir + "/log")
			t.Logf("containerd:\n%s", data)
		}
	})
	for range 100 {
		if exec.Command("ctr", "-a", dir+"/sock", "version").Run() == nil {
			return func(args ...string) []byte {
				t.Helper()
				for i, a := range args {
					if a == "--hosts-dir" {
						args[i+1] = dir + "/hosts"
					}
				}
				return run(t, append([]string{"ctr", "-a", dir + "/sock"}, args...)...)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Skip("containerd does not start here")
	return nil
}

// A real containerd pulls every image under its own name, by tag and digest, through a
// hosts.toml, as k3s's registries.yaml has it.
func TestContainerdPull(t *testing.T) {
	b, server, log := lab(t)
	hosts := map[string]string{}
	for _, im := range b.Images() {
		host, _, _, _, err := bundle.SplitReference(im.Name)
		if err != nil {
			t.Fatal(err)
		}
		hosts[host] = server.URL
	}
	ctr := containerd(t, hosts)
	for _, im := range b.Images() {
		ctr("images", "pull", "--snapshotter", "native", "--platform", "linux/amd64", "--hosts-dir", "", im.Name)
		if list := ctr("images", "list", "name=="+im.Name); !bytes.Contains(list, []byte(im.Digest.String())) {
			t.Errorf("containerd has %s", list)
		}
	}
	ctr("images", "check", "--snapshotter", "native")
	if log.Len() > 0 {
		t.Errorf("log tells of: %s", log)
	}
}

// containerd imports the bundle as it is, artifacts and all.
func TestContainerdImport(t *testing.T) {
	b, _, _ := lab(t)
	ctr := containerd(t, nil)
	ctr("images", "import", "--snapshotter", "native", b.Path())
	list := ctr("images", "list")
	for _, im := range b.Images() {
		found := errors.New("missing")
		for line := range strings.Lines(string(list)) {
			if strings.HasPrefix(line, im.RefName+" ") && strings.Contains(line, im.Digest.String()) {
				found = nil
			}
		}
		if found != nil {
			t.Errorf("%s (%s): %v in\n%s", im.RefName, im.Digest, found, list)
		}
	}
}
