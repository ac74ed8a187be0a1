package disk

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// makeDeb puts a package with this control file into the store.
func makeDeb(t *testing.T, s *bundle.Store, control string) bundle.LockedPackage {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/tree/DEBIAN", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/tree/DEBIAN/control", []byte(control), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("dpkg-deb", "--nocheck", "--root-owner-group", "--build", dir+"/tree", dir+"/x.deb").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(dir + "/x.deb")
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.PutBytes(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	return bundle.LockedPackage{Name: "app", Version: "1:1.0-1", Path: "pool/app.deb", Digest: h, Size: int64(len(data))}
}

func openStore(t *testing.T) *bundle.Store {
	t.Helper()
	s, err := bundle.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const control = "Package: app\nVersion: 1:1.0-1\nArchitecture: amd64\nMaintainer: nobody <n@example.test>\nDepends: lib (>= 1),\n other\nDescription: lab\n more\n .\n Package: bash\n"

// TestRepository has packages that are not what the lock says, and one that is.
func TestRepository(t *testing.T) {
	s := openStore(t)
	for _, tc := range []struct{ old, new, want string }{
		{"", "", ""},
		{"Architecture: amd64", "Architecture: all", ""},
		{"Package: app", "Package: bash", `it is "bash" "1:1.0-1", and is locked as app 1:1.0-1`},
		{"1:1.0-1", "1.0-1", `it is "app" "1.0-1"`},
		{"Architecture: amd64", "Architecture: arm64", `it is for "arm64", not for amd64`},
		{"Package: app\n", "", "dpkg-deb"},
		{"Description: lab\n", "Description: lab\n\nPackage: bash\nVersion: 1\nDescription: two\n", "dpkg-deb"},
		{"Maintainer:", "Package: bash\nMaintainer:", "dpkg-deb"},
		{"Description: lab\n", "Description: lab\nFilename: ../../evil.deb\nSHA256: 00\n", ""},
		{"Description: lab\n", "Description: lab\n" + strings.Repeat(" more\n", bounds.DebFields/6), "more than 1048576 bytes"},
	} {
		p := makeDeb(t, s, strings.Replace(control, tc.old, tc.new, 1))
		dir := filepath.Join(t.TempDir(), "repository")
		err := writeRepository(t.Context(), dir, &bundle.Lock{Platform: "linux/amd64", Packages: []bundle.LockedPackage{p}}, s)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.60q for %q: got %v, want %q", tc.new, tc.old, err, tc.want)
		}
		if err != nil {
			continue
		}
		list, err := os.ReadFile(dir + "/Packages")
		if err != nil {
			t.Fatal(err)
		}
		text := string(list)
		if strings.Contains(text, "evil") || strings.Count(text, "\nSHA256: "+p.Digest.Hex+"\n") != 1 || strings.Count(text, "\nSHA256:") != 1 ||
			strings.Count(text, "\n\n") != 1 || !strings.Contains(text, "Depends: lib (>= 1), other\n") {
			t.Errorf("the list is\n%s", text)
		}
	}
}

// TestNamesAreNoArguments: a lock that was not read by [bundle.ParseLock] ends before any
// program runs.
func TestNamesAreNoArguments(t *testing.T) {
	s := openStore(t)
	p := makeDeb(t, s, control)
	t.Setenv("PATH", t.TempDir())
	for _, name := range []string{"-oDPkg::Pre-Invoke::=touch MARKER", "app,-oDir=/", "?essential", "./app.deb", "app-", "app=1", "app/sid"} {
		p.Name = name
		_, err := BuildBase(t.Context(), &bundle.Lock{Platform: "linux/amd64", Packages: []bundle.LockedPackage{p}}, s, t.TempDir(), nil)
		if err == nil || !strings.Contains(err.Error(), "is not the name of a Debian package") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestIsolatedEnvironment: a secret of the user's is not seen by what installs packages.
func TestIsolatedEnvironment(t *testing.T) {
	if err := lookIsolated(); err != nil {
		t.Skip(err)
	}
	t.Setenv("S3CRET", "value")
	out, err := isolated(t.Context(), "env").Output()
	if err != nil {
		t.Skipf("no namespaces here: %v", err)
	}
	if strings.Contains(string(out), "S3CRET") || !strings.Contains(string(out), "LC_ALL=C.UTF-8\n") {
		t.Errorf("the environment is\n%s", out)
	}
}

// TestPackageTimes: the head of a package holds no time that nothing could keep.
func TestPackageTimes(t *testing.T) {
	s := openStore(t)
	for at, want := range map[string]bool{"1700000000": true, "0": true, "-5": false, "999999999999": false, "": false, "1 2": false} {
		data := []byte("!<arch>\n" + "debian-binary   " + at + strings.Repeat(" ", 12-len(at)) + strings.Repeat(" ", 32))
		h, err := s.PutBytes(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := packageTime(s, bundle.LockedPackage{Digest: h}); (err == nil) != want {
			t.Errorf("%q: %v", at, err)
		}
	}
}
