package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"atoll/bundle"
	"atoll/test/guest"
	"atoll/test/kubeflow"
)

// needLab gives the absolute path of the lab k3s release, and skips where it or a tool is
// not there.
func needLab(t *testing.T) string {
	t.Helper()
	release, err := filepath.Abs(labK3s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(release, "k3s")); err != nil {
		t.Skip("no lab k3s release; make lab-k3s builds it")
	}
	needTools(t)
	return release
}

// needTools skips the test where a tool is missing that making and booting an image needs.
func needTools(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"qemu-system-x86_64", "qemu-img", "mmdebstrap", "docker-registry"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed; make deps installs it", tool)
		}
	}
}

// programs builds atoll and labimages.
func programs(t *testing.T, dir string) (atoll, labimages string) {
	t.Helper()
	atoll, labimages = filepath.Join(dir, "atoll"), filepath.Join(dir, "labimages")
	run(t, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", atoll, "atoll/cmd/atoll")
	run(t, "go", "build", "-o", labimages, "atoll/test/labimages")
	return atoll, labimages
}

// published are the secrets that upstream's manifests have, which everyone knows: Dex's
// password (as a hash), the OIDC client's, the cookies', the object store's and Katib's
// database's.
var published = regexp.MustCompile(`4K/VkmDd1q1Orb3xAt82zu8gk7Ad6ReFR4LCP9UeYE90NLiN9Df72|JDJ5JDEyJDRLL1ZrbURkMXExT3JiM3hBdDgyenU4|` +
	`pUBnBOY80SnXgjibTYM9ZWNzY2xreNGQok|cFVCbkJPWTgwU25YZ2ppYlRZTTlaV056WTJ4cmVOR1Fvaw|` +
	`7d16fee92f8d11b8940b081b3f8b8acb|N2QxNmZlZTkyZjhkMTFiODk0MGIwODFiM2Y4YjhhY2I|minio123|bWluaW8xMjM`)

// TestKubeflow makes the appliance of Kubeflow from the real manifests up to the disk
// image, with a small image under each of the real names.
func TestKubeflow(t *testing.T) {
	dir, sources := kubeflow.Unpack(t)
	release := needLab(t)
	atoll, labimages := programs(t, dir)
	definition := filepath.Join(dir, "appliance.yaml")
	text := fmt.Sprintf("name: kf\nstack: kubeflow\nk3s: {version: v1.34.4+lab1, release: %q}\nincludeImages: ['*']\n", release)
	if err := os.WriteFile(definition, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	flags := append([]string{"-f", definition}, sources.Flags()...)

	// What is pinned by a digest cannot have another image under its name. So the manifests
	// get the digests of the images that stand in.
	names := listImages(t, atoll, flags)
	if n, err := kubeflow.Repin(t.Context(), labimages, "", sources, names); n != 7 || err != nil {
		t.Fatalf("%d digests replaced, want those of 7 images: %v", n, err)
	}
	names = listImages(t, atoll, flags)
	if len(names) < 105 {
		t.Errorf("%d images, want those of the list at least", len(names))
	}
	list := filepath.Join(dir, "names")
	if err := os.WriteFile(list, []byte(strings.Join(names, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	flags = append(flags, kubeflow.Mirrors(names)...)
	const both = `"$0" lock "$@" && "$0" build --frozen "$@"`
	run(t, labimages, append([]string{"serve", "-dir", filepath.Join(dir, "registry"), "-stand-ins", list, "--", "sh", "-c", both, atoll}, flags...)...)

	tar, disk := filepath.Join(dir, "build/kf.bundle.tar"), filepath.Join(dir, "build/kf.raw")
	run(t, atoll, "bundle", "verify", tar)
	b, err := bundle.Open(tar)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if len(b.Images()) != len(names) {
		t.Errorf("%d images in the bundle, want %d", len(b.Images()), len(names))
	}
	if _, err := exec.LookPath("sgdisk"); err == nil {
		if out := run(t, "sgdisk", "-v", disk); !strings.Contains(out, "No problems found") {
			t.Errorf("partition table is not sound:\n%s", out)
		}
	}
	lock, err := os.ReadFile(filepath.Join(dir, "appliance.lock"))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := b.Plan()
	if err != nil {
		t.Fatal(err)
	}
	planText, err := plan.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"lock": lock, "plan": planText} {
		if found := published.FindAll(data, -1); found != nil {
			t.Errorf("%s has a published secret: %q", name, found)
		}
		if bytes.Contains(data, []byte(dir)) {
			t.Errorf("%s has a path of this machine", name)
		}
	}
	why := run(t, atoll, "why", "-f", definition, "jobset")
	if !strings.Contains(why, "fetched from registry.k8s.io/jobset/jobset:v0.10.1") {
		t.Errorf("why jobset: %s", why)
	}
}

// listImages gives the names that the appliance's images are fetched by.
func listImages(t *testing.T, atoll string, flags []string) []string {
	t.Helper()
	names, err := kubeflow.ListImages(t.Context(), atoll, flags)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestKubeflowDryRun boots a lab appliance that holds the plans of Kubeflow, one for each
// way to sign in, against its API server: the definitions for real, all else as a dry run.
func TestKubeflowDryRun(t *testing.T) {
	dir, sources := kubeflow.Unpack(t)
	release := needLab(t)
	guest.Alone(t)
	atoll, labimages := programs(t, dir)
	flags := []string{"serve", "-dir", filepath.Join(dir, "registry")}
	for _, auth := range []string{"authservice", "oauth2-proxy"} {
		path := filepath.Join(dir, auth+".json")
		plan, err := kubeflow.Plan(t, sources, auth).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, plan, 0o644); err != nil {
			t.Fatal(err)
		}
		flags = append(flags, "-plan", path)
	}
	overlay, err := filepath.Abs("lab/dryrun")
	if err != nil {
		t.Fatal(err)
	}
	definition := filepath.Join(dir, "appliance.yaml")
	text := fmt.Sprintf("name: dryrun\nstack: lab\noverlays: [%q]\nk3s: {version: v1.34.4+lab1, release: %q}\n", overlay, release)
	if err := os.WriteFile(definition, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, labimages, append(flags, "--", "../scripts/lab.sh", "{registry}", atoll, definition)...)
	console := filepath.Join(dir, "console.log")
	out, err := command(atoll, "boot", filepath.Join(dir, "build/dryrun.raw"), "--log", console, "--timeout", "50m").CombinedOutput()
	t.Logf("boot:\n%s", out)
	if err != nil {
		text, _ := os.ReadFile(console)
		t.Fatalf("boot: %v; the console's end:\n%s", err, text[max(0, len(text)-8192):])
	}
}
