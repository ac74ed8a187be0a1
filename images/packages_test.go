package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atoll/bundle"
)

// archive makes a Debian archive with an essential package, one that needs
// another, and one that recommends what must not come along.
func archive(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%v", err)
		}
	}
	dir := t.TempDir()
	packages := ""
	for name, more := range map[string]string{
		"base": "Essential: yes\nVersion: 1:2.0+a~b-1\n", "app": "Depends: lib (>= 1)\nRecommends: extra\nVersion: 1\n",
		"lib": "Version: 1.5\n", "extra": "Version: 1\n", "required": "Priority: required\nVersion: 3\n",
	} {
		control := "Package: " + name + "\nArchitecture: amd64\nMaintainer: nobody <n@example.test>\nDescription: lab\n" + more
		root := filepath.Join(dir, "work", name)
		if err := os.MkdirAll(root+"/DEBIAN", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+"/DEBIAN/control", []byte(control), 0o644); err != nil {
			t.Fatal(err)
		}
		path := "pool/main/" + name + "_1+x_amd64.deb"
		if err := os.MkdirAll(dir+"/pool/main", 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("dpkg-deb", "--build", "--root-owner-group", root, filepath.Join(dir, path)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		packages += fmt.Sprintf("%sFilename: %s\nSize: %d\nSHA256: %s\n\n", control, path, len(data), bundle.DigestOf(data).Hex)
	}
	lists := dir + "/dists/bookworm/main/binary-amd64"
	if err := os.MkdirAll(lists, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(lists+"/Packages", []byte(packages), 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(packages))
	release := fmt.Sprintf("Origin: Lab\nLabel: Lab Archive\nSuite: bookworm\nCodename: bookworm\nDate: Mon, 23 Nov 2026 11:22:37 UTC\nArchitectures: amd64\nComponents: main\nSHA256:\n %s %d main/binary-amd64/Packages\n",
		hex.EncodeToString(sum[:]), len(packages))
	if err := os.WriteFile(dir+"/dists/bookworm/Release", []byte(release), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPackages(t *testing.T) {
	t.Parallel()
	dir := archive(t)
	base := bundle.Base{Suite: "bookworm", Sources: []string{"deb [trusted=yes] file:" + dir + " bookworm main"}}
	got, epoch, err := ResolvePackages(context.Background(), base, "amd64", []string{"app"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range got {
		names = append(names, p.Name+"="+p.Version)
	}
	if s := strings.Join(names, " "); s != "app=1 base=1:2.0+a~b-1 lib=1.5 required=3" {
		t.Errorf("got %s", s)
	}
	if got[0].Archive != "Lab Archive" || got[0].Path != "pool/main/app_1+x_amd64.deb" {
		t.Errorf("app is at %q in %q", got[0].Path, got[0].Archive)
	}
	if want := time.Date(2026, 11, 23, 11, 22, 37, 0, time.UTC); !epoch.Equal(want) {
		t.Errorf("epoch is %v, want %v", epoch, want)
	}
	d := definition(t, "")
	d.Base = base
	s := newStore(t)
	if err := Mirror(context.Background(), d, &bundle.Lock{Packages: got}, s, nil); err != nil {
		t.Fatal(err)
	}
	for _, p := range got {
		if !has(t, s, p.Digest) {
			t.Errorf("package %s is not in the store", p.Name)
		}
	}
}

func TestPackagesUnknown(t *testing.T) {
	t.Parallel()
	base := bundle.Base{Suite: "bookworm", Sources: []string{"deb [trusted=yes] file:" + archive(t) + " bookworm main"}}
	for _, tc := range []struct {
		packages []string
		want     string
	}{
		{[]string{"app", "nosuch", "nor-this"}, "Unable to locate package nosuch; Unable to locate package nor-this"},
		{[]string{"base-"}, `"base-" is not the name`},
		{[]string{"-o=Dir=/"}, "is not the name"},
		{[]string{"~i"}, "is not the name"},
	} {
		if _, _, err := ResolvePackages(context.Background(), base, "amd64", tc.packages, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: got %v, want %q", tc.packages, err, tc.want)
		}
	}
	base.Sources = []string{"deb http://127.0.0.1:1/debian bookworm main"}
	if _, _, err := ResolvePackages(context.Background(), base, "amd64", nil, nil); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("archive is down: got %v", err)
	}
}

func TestUnsignedArchive(t *testing.T) {
	t.Parallel()
	base := bundle.Base{Suite: "bookworm", Sources: []string{"deb file:" + archive(t) + " bookworm main"}}
	if _, _, err := ResolvePackages(context.Background(), base, "amd64", nil, nil); err == nil || !strings.Contains(err.Error(), "not signed") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestMachineSources(t *testing.T) {
	in := "# a comment\nTypes: deb deb-src\nURIs: http://a/\n# another\nSuites: bookworm bookworm-updates trixie\nX-Odd: a\nComponents: main\nSigned-By:\n -----BEGIN\n .\n\tabc\nAllow-Insecure: no\n\n" +
		"Types: deb\nURIs: http://b/\nSuites: nodistro\nComponents: main\nTrusted: yes\n\n" +
		"Types: deb\nEnabled: no\nURIs: http://c/\nSuites: bookworm\n\nTypes: deb-src\nURIs: http://d/\nSuites: bookworm\n"
	want := "Types: deb\nURIs: http://a/\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: \n -----BEGIN\n .\n abc\n\n"
	for _, in := range []string{in, strings.ReplaceAll(in, "\n", "\r\n")} {
		if got, err := deb822Sources("x", in, "bookworm"); got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	in = "deb-src http://a bookworm main\n#deb http://b bookworm main\ndeb [arch=amd64\tsigned-by=/k] http://c bookworm-security main # it\ndeb http://d trixie main\n" +
		"deb cdrom:[Debian GNU/Linux 12]/ bookworm main\ndeb [trusted=yes] http://other.test ./\n"
	if got, err := oneLineSources("x", in, "bookworm"); got != "deb [arch=amd64 signed-by=/k] http://c bookworm-security main\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
