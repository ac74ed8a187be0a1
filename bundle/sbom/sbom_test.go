package sbom_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/github/go-spdx/v2/spdxexp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	packageurl "github.com/package-url/packageurl-go"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdxlib"

	"atoll/bundle"
	"atoll/bundle/bundletest"
	"atoll/bundle/sbom"
)

var update = flag.Bool("update", false, "write the golden file anew")

const dep5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"

// program builds a Go program of two modules, one of which a folder replaces.
func program(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":      "module example.test/program\n\ngo 1.26.0\n\nrequire example.test/dep v1.2.3\n\nreplace example.test/dep v1.2.3 => ./dep\n",
		"main.go":     "package main\n\nimport _ \"example.test/dep\"\n\nfunc main() {}\n",
		"dep/go.mod":  "module example.test/dep\n\ngo 1.26.0\n",
		"dep/main.go": "package dep\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", "program")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off", "GOPROXY=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "program")
}

// input is of every kind that a lock can name.
func input(t *testing.T) (sbom.Input, *bundletest.Fixture) {
	t.Helper()
	f := bundletest.New(t)
	f.AddPackage(t, "libgreet1", "1:2.0-1+deb12u1", bundletest.Deb("libgreet1", "1:2.0-1+deb12u1", bundletest.Copyright("libgreet1",
		dep5+"Files: *\nLicense: GPL-2+ or Perl\n\nFiles: x\nLicense: public-domain\n Nobody's. \u009b31m\n .\n <At all>.\n")))
	f.AddPackage(t, "greet-doc", "2.0~rc1", bundletest.Deb("greet-doc", "2.0~rc1", bundletest.Member{}))
	f.AddPackage(t, "g++", "1", bundletest.Deb("g++", "1", bundletest.Copyright("g++", "As you like.\n")))
	f.Lock.Packages[1].Archive, f.Lock.Packages[2].Archive = "", "Site"
	index := bundletest.Index(t, "multi")
	f.AddIndex(t, "registry.example:5000/org/app:1", index)
	f.AddImage(t, "docker.io/library/busybox:1.28", bundletest.Image(t, bundletest.Platform, "busybox"))
	f.AddIndex(t, "quay.io/org/Pinned@DIGEST", index)
	// Names of images have no capitals; the lock says so too.
	f.Lock.Images[2].Reference = strings.ToLower(f.Lock.Images[2].Reference)
	f.Lock.Images[1].From = "mirror.example/busybox:1.28"
	f.Lock.Files = []bundle.LockedFile{
		{Name: "k3s", URL: "https://example.test/v1.34.4%2Bk3s1/k3s", Digest: bundle.DigestOf([]byte("k3s")), Size: 3},
		{Name: "k3s-images.txt", URL: "/home/me/k3s/k3s-images.txt", Digest: bundle.DigestOf([]byte("txt")), Size: 3},
	}
	f.Lock.Sources = []bundle.LockedSource{
		{Name: "manifests", URL: "https://github.com/org/manifests/archive/x.tar.gz", Tree: strings.Repeat("ab", 20), Digest: bundle.DigestOf([]byte("tree")), Size: 4, Modified: true},
		{Name: "cert-manager", URL: "https://example.test/cert-manager.yaml", Digest: bundle.DigestOf([]byte("file")), Size: 4},
	}
	digest, size, err := f.Store.PutFile(t.Context(), program(t))
	if err != nil {
		t.Fatal(err)
	}
	return sbom.Input{
		Definition: &bundle.Definition{Name: "box", Base: bundle.Base{Suite: "bookworm"}, K3s: bundle.K3s{Version: "v1.34.4+k3s1"}},
		Lock:       f.Lock,
		Sources: []bundle.Source{
			{Name: "manifests", Repository: "https://github.com/org/manifests", Ref: "v1.2", Commit: strings.Repeat("cd", 20), Tree: strings.Repeat("ab", 20)},
			{Name: "cert-manager", URL: "https://example.test/cert-manager.yaml"},
		},
		Program: bundle.File{Name: "atoll", Digest: digest, Size: size},
		Version: "v1.2.3",
		Store:   f.Store,
	}, f
}

func makeDocument(t *testing.T, in sbom.Input) []byte {
	t.Helper()
	data, _, err := sbom.Make(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// masked leaves out what changes with the Go toolchain: its version, the program, and
// digests of what is compressed, of which only remains which are the same.
func masked(data []byte, in sbom.Input) []byte {
	text := strings.ReplaceAll(string(data), strings.TrimPrefix(runtime.Version(), "go"), "GO")
	text = strings.ReplaceAll(text, fmt.Sprintf("Size: %d bytes", in.Program.Size), "Size: PROGRAM bytes")
	seen := map[string]string{}
	text = regexp.MustCompile(`[0-9a-f]{64}|pinned-sha256-[-0-9a-f]+`).ReplaceAllStringFunc(text, func(digest string) string {
		if seen[digest] == "" {
			seen[digest] = fmt.Sprintf("DIGEST-%d", len(seen)+1)
		}
		return seen[digest]
	})
	return []byte(regexp.MustCompile(`licenseListVersion": "[0-9.]+"`).ReplaceAllString(text, `licenseListVersion": "LIST"`))
}

func TestGolden(t *testing.T) {
	in, _ := input(t)
	got := masked(makeDocument(t, in), in)
	const golden = "testdata/box.spdx.json"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("is not %s:\n%s", golden, got)
	}
}

// The same input gives the same bytes, in whatever order the lock has it, with a cache, with
// a damaged one, and without. Another input has another name.
func TestDeterminism(t *testing.T) {
	in, _ := input(t)
	want := makeDocument(t, in)
	in.Cache = t.TempDir()
	for _, try := range []string{"first", "cached", "damaged", "another's"} {
		kept, err := filepath.Glob(filepath.Join(in.Cache, "*"))
		if err != nil || len(kept) != map[bool]int{true: 0, false: 3}[try == "first"] {
			t.Fatalf("the cache has %q (%v)", kept, err)
		}
		for _, path := range kept {
			text := map[string]string{"damaged": `{"format":1,"pack`, "another's": `{"format":99,"package":"x"}`}[try]
			if text != "" {
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := makeDocument(t, in); !bytes.Equal(got, want) {
			t.Errorf("%s: other bytes", try)
		}
	}
	turned := *in.Lock
	turned.Packages = append(turned.Packages[1:len(turned.Packages):len(turned.Packages)], turned.Packages[0])
	in.Lock = &turned
	if got := makeDocument(t, in); !bytes.Equal(got, want) {
		t.Error("another order gives other bytes")
	}
	in.Version = "v1.2.4"
	name := func(data []byte) string { return string(regexp.MustCompile(`"documentNamespace": ".*"`).Find(data)) }
	if got := makeDocument(t, in); name(got) == name(want) || name(got) == "" {
		t.Errorf("another document has the same name: %s", name(got))
	}
}

// check is what a reader may rely on.
func check(t *testing.T, data []byte) *spdx.Document {
	t.Helper()
	doc, err := spdxjson.Read(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Error(err)
	}
	terms := map[string]bool{}
	for _, l := range doc.OtherLicenses {
		if terms[l.LicenseIdentifier] || l.ExtractedText == "" || l.LicenseName == "" {
			t.Errorf("licence %+v", l)
		}
		terms[l.LicenseIdentifier] = true
	}
	ids := map[string]bool{}
	for _, p := range doc.Packages {
		id := string(p.PackageSPDXIdentifier)
		if ids[id] || !regexp.MustCompile(`^[A-Za-z0-9.-]+$`).MatchString(id) {
			t.Errorf("identifier %q", id)
		}
		ids[id] = true
		if p.PackageLicenseConcluded != "NOASSERTION" || p.FilesAnalyzed {
			t.Errorf("%s: more is concluded than is known", id)
		}
		if e := p.PackageLicenseDeclared; e != "NOASSERTION" {
			if ok, _ := spdxexp.ValidateLicenses([]string{e}); !ok {
				t.Errorf("%s: licence %q", id, e)
			}
			for _, ref := range regexp.MustCompile(`LicenseRef-[A-Za-z0-9.-]+`).FindAllString(e, -1) {
				if !terms[ref] {
					t.Errorf("%s: %s is nowhere", id, ref)
				}
			}
		}
		for _, r := range p.PackageExternalReferences {
			if r.RefType != "purl" {
				continue
			}
			u, err := packageurl.FromString(r.Locator)
			if err != nil || u.String() != r.Locator {
				t.Errorf("%s: %s (%v)", id, r.Locator, err)
			}
		}
	}
	described, err := spdxlib.GetDescribedPackageIDs(doc)
	if err != nil || len(described) != 1 {
		t.Errorf("describes %v (%v)", described, err)
	}
	return doc
}

func TestJudges(t *testing.T) {
	in, _ := input(t)
	data := makeDocument(t, in)
	check(t, data)
	judge(t, data)
}

// judge asks the SPDX project's own tool, where it is installed (PyPI: spdx-tools).
func judge(t *testing.T, data []byte) {
	t.Helper()
	tool, err := exec.LookPath("pyspdxtools")
	if err != nil {
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), "x.spdx.json")
	run := func(data []byte) ([]byte, error) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return exec.Command(tool, "-i", path).CombinedOutput()
	}
	if out, err := run(data); err != nil {
		t.Errorf("pyspdxtools: %v\n%s", err, out)
	}
	if _, err := run(bytes.Replace(data, []byte("SPDXRef-appliance"), []byte("SPDXRef-nothing"), 1)); err == nil {
		t.Error("pyspdxtools says yes to anything")
	}
}

func TestErrors(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, in *sbom.Input, f *bundletest.Fixture)
		want  string
		is    error
	}{
		"a package is not there": {func(t *testing.T, in *sbom.Input, f *bundletest.Fixture) {
			os.Remove(f.Store.Path(in.Lock.Packages[0].Digest))
		}, "package libgreet1 1:2.0-1+deb12u1: it is not in the store", bundle.ErrIncomplete},
		"a package is none": {func(t *testing.T, in *sbom.Input, f *bundletest.Fixture) {
			f.AddPackage(t, "none", "1", []byte("the package none"))
		}, "package none 1: is no Debian package", nil},
		"a package is another": {func(t *testing.T, in *sbom.Input, f *bundletest.Fixture) {
			f.AddPackage(t, "good", "1", bundletest.Deb("evil", "6.6.6"))
		}, `package good 1: by its own word it is "evil" "6.6.6"`, nil},
		"a package twice": {func(t *testing.T, in *sbom.Input, f *bundletest.Fixture) {
			f.Lock.Packages = append(f.Lock.Packages, f.Lock.Packages[0])
		}, "package libgreet1 is there twice", nil},
		"the program is not there": {func(t *testing.T, in *sbom.Input, f *bundletest.Fixture) {
			in.Program.Digest = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
		}, "no such file", os.ErrNotExist},
		"the program is not Go's": {func(t *testing.T, in *sbom.Input, f *bundletest.Fixture) {
			in.Program.Digest = f.Put(t, []byte("\x7fELF and so on"))
		}, "what the node's program is made of", nil},
	} {
		in, f := input(t)
		test.spoil(t, &in, f)
		_, _, err := sbom.Make(t.Context(), in)
		if err == nil || !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
}

// Nothing in the document moves a terminal, and it says the same.
func TestEscape(t *testing.T) {
	const name = "a\u009b31m\u202e\U000e0001\x7f\n\"ü"
	data, err := json.Marshal(name)
	if err != nil {
		t.Fatal(err)
	}
	escaped := sbom.Escape(data)
	var back string
	if err := json.Unmarshal(escaped, &back); err != nil || back != name {
		t.Errorf("%s is %q (%v)", escaped, back, err)
	}
	if want := `"a\u009b31m\u202e\udb40\udc01\u007f\n\"ü"`; string(escaped) != want {
		t.Errorf("got %s, want %s", escaped, want)
	}
}
