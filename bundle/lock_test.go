package bundle

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"atoll/bundle/bounds"
)

// wholeLock has one of everything.
const wholeLock = `version: 1
definition: sha256:0000000000000000000000000000000000000000000000000000000000000000
manifests: sha256:1111111111111111111111111111111111111111111111111111111111111111
epoch: 2026-01-01T00:00:00Z
platform: linux/amd64
sources:
  - name: manifests
    url: https://h.test/archive/1.tar.gz
    tree: a123456789012345678901234567890123456789
    digest: sha256:2222222222222222222222222222222222222222222222222222222222222222
    size: 5
images:
  - reference: docker.io/library/busybox:1@sha256:3333333333333333333333333333333333333333333333333333333333333333
    from: quay.io/org/busybox:1
    digest: sha256:3333333333333333333333333333333333333333333333333333333333333333
    manifest: sha256:4444444444444444444444444444444444444444444444444444444444444444
    size: 6
    tier: required
    where:
      - 'web: Deployment/web spec.image'
files:
  - name: k3s
    url: ../release/k3s
    digest: sha256:5555555555555555555555555555555555555555555555555555555555555555
    size: 7
packages:
  - name: libstdc++6
    version: 1:2.0+a~b-1
    archive: Lab Archive
    path: pool/main/l/libstdc++6_2.0+a~b-1_amd64.deb
    digest: sha256:6666666666666666666666666666666666666666666666666666666666666666
    size: 8
    unauthenticated: true
`

// TestLockGrammar has each value of a lock held against the grammar of what it stands for.
func TestLockGrammar(t *testing.T) {
	l, err := ParseLock("a.lock", []byte(wholeLock))
	if err != nil {
		t.Fatal(err)
	}
	again, err := l.Encode()
	if _, text, _ := bytes.Cut(again, []byte("\n")); err != nil || string(text) != wholeLock {
		t.Errorf("written again it is (%v):\n%s", err, text)
	}
	packages := wholeLock[strings.Index(wholeLock, "  - name: libstdc"):]
	for _, tc := range []struct{ old, new, want string }{
		// What mmdebstrap and apt would take for more than a name.
		{"libstdc++6\n", "'-oDPkg::Pre-Invoke::=touch MARKER'\n", "not the name of a Debian package"},
		{"libstdc++6\n", "-oDPkg::Pre-Invoke::=touch${IFS}/MARKER\n", "not the name"},
		{"libstdc++6\n", "bash,-oDir=/\n", "not the name"},
		{"libstdc++6\n", "'bash sudo'\n", "not the name"},
		{"libstdc++6\n", "\"bash\\nsudo\"\n", "not the name"},
		{"libstdc++6\n", "\"bash\\n\"\n", "not the name"},
		{"libstdc++6\n", "?essential\n", "not the name"},
		{"libstdc++6\n", "~i\n", "not the name"},
		{"libstdc++6\n", "'!bash'\n", "not the name"},
		{"libstdc++6\n", "bash/sid\n", "not the name"},
		{"libstdc++6\n", "bash=1\n", "not the name"},
		{"libstdc++6\n", "bash:i386\n", "not the name"},
		{"libstdc++6\n", "./evil.deb\n", "not the name"},
		{"libstdc++6\n", "/tmp/evil.deb\n", "not the name"},
		{"libstdc++6\n", "bash-\n", "not the name"},
		{"libstdc++6\n", "bash*\n", "not the name"},
		{"libstdc++6\n", "Bash\n", "not the name"},
		{"libstdc++6\n", strings.Repeat("a", 121) + "\n", "not the name"},
		{"libstdc++6\n", "\n", "not the name"},
		{"1:2.0+a~b-1\n", "1 2\n", "not a version"},
		{"1:2.0+a~b-1\n", "1_2\n", "not a version"},
		{"1:2.0+a~b-1\n", "a1\n", "not a version"},
		{"1:2.0+a~b-1\n", "'1:'\n", "not a version"},
		{"1:2.0+a~b-1\n", "1-\n", "not a version"},
		{"1:2.0+a~b-1\n", "9999999999:1\n", "not a version"},
		{"1:2.0+a~b-1\n", "\n", "not a version"},
		{"path: pool/", "path: ../", "below an archive"},
		{"path: pool/", "path: /", "below an archive"},
		{"path: pool/", "path: pool/../../", "below an archive"},
		{"path: pool/main", `path: "pool/\e[2J"`, "did not find"},
		{"Lab Archive", `"Lab\e[2JArchive"`, "not a line of text"},
		{"Lab Archive", `"Lab\nArchive"`, "not a line of text"},
		{"Lab Archive", `"Lab` + "\u202e" + `Archive"`, "not a line of text"},
		{packages, packages + packages, "package libstdc++6 is there twice"},
		// The rest.
		{"platform: linux/amd64", "platform: linux/amd64 --mode=chrootless", "platform"},
		{"platform: linux/amd64\n", "", "platform"},
		{"definition: sha256:0000000000000000000000000000000000000000000000000000000000000000\n", "", "no digest"},
		{"epoch: 2026", "epoch: 1812", "epoch"},
		{"epoch: 2026-01-01T00:00:00Z\n", "", "epoch"},
		{"size: 8", "size: -8", "size"},
		{"size: 8", "size: 9223372036854775807", "size"},
		{"sha256:6666666666666666666666666666666666666666666666666666666666666666", "sha256:6666", "hex digits"},
		{"docker.io/library/busybox:1@", "busybox:1@", "canonical"},
		{"docker.io/library/busybox:1@", `"docker.io/library/busy\e[2Jbox:1"#`, "canonical"},
		{"busybox:1@sha256:3333", "busybox:1@sha256:3433", "pinned to another digest"},
		{"from: quay.io/org/busybox:1", "from: quay.io/org/busybox", "canonical"},
		{"tier: required", "tier: needed", "no tier"},
		{"tier: required\n", "tier:\n", "no tier"},
		{"'web: Deployment/web spec.image'", `"web: \e]0;x\a"`, "not a line of text"},
		{"name: manifests", "name: ../manifests", "not the name of a source"},
		{"tree: a123", "tree: --123", "git tree hash"},
		{"https://h.test/archive", "https://u:p@h.test/archive", "a user or a password"},
		{"https://h.test/archive", "ext::sh -c touch MARKER://h.test/archive", "neither http, https nor file"},
		{"https://h.test/archive", "ssh://-oProxyCommand=x/archive", "neither http, https nor file"},
		{"url: https://h.test/archive/1.tar.gz", "url:", "neither a URL nor a path"},
		{"name: k3s", "name: ../k3s", "not the name of a file"},
		{"name: k3s", "name: .k3s", "not the name of a file"},
		{"name: k3s", "name: -k3s", "not the name of a file"},
		{"url: ../release/k3s", `url: "../release/\n/k3s"`, "neither a URL nor a path"},
		// Strictness.
		{"version: 1", "version: 1\nfoes:", "field foes not found"},
		{"tier: required", "tier: required\n    trusted:", "field trusted not found"},
		{"version: 1", "version: 1\nversion: 1", "already defined"},
		{"unauthenticated: true\n", "unauthenticated: true\n---\nversion: 1\n", "second YAML document"},
		{"Lab Archive", "&a Lab", "no aliases"},
		{"Lab Archive", "!!binary TGFi", "no tags"},
		{"- 'web: Deployment/web spec.image'", "[[[[[[[a]]]]]]]", "too deeply"},
		{"  - name: k3s", "  - {" + strings.Repeat("a: 1, ", 40) + "}\n  - name: k3s", "more than 32 fields"},
	} {
		text := strings.Replace(wholeLock, tc.old, tc.new, 1)
		if text == wholeLock {
			t.Fatalf("%q is not in the lock", tc.old)
		}
		if _, err := ParseLock("a.lock", []byte(text)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q for %q: got %v, want %q", tc.new, tc.old, err, tc.want)
		}
	}
	if _, err := ParseLock("a.lock", []byte(strings.Replace(wholeLock, "version: 1", "version: 2", 1))); !errors.Is(err, ErrStale) {
		t.Errorf("another version: %v", err)
	}
	d := &Definition{}
	d.setDefaults()
	l.Definition = d.Checksum()
	l.Platform = "linux/arm64"
	if err := l.Check(d, nil); !errors.Is(err, ErrStale) || !strings.Contains(err.Error(), "platform") {
		t.Errorf("another platform: %v", err)
	}
}

// TestLockBounds has small files that would take memory or time.
func TestLockBounds(t *testing.T) {
	var keys strings.Builder
	for i := range 80000 {
		keys.WriteString("a" + strconv.Itoa(i) + ":\n")
	}
	for name, text := range map[string]string{
		"keys":    keys.String(),
		"items":   wholeLock + "x: [" + strings.Repeat("a,", 1<<20) + "]",
		"nested":  strings.Repeat("[", 1<<20),
		"bytes":   wholeLock + strings.Repeat("#\n", bounds.Lock/2),
		"aliases": "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
	} {
		if _, err := ParseLock("a.lock", []byte(text)); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

// TestLockPlaces: a manifest's keys may be anything, and what is written can be read.
func TestLockPlaces(t *testing.T) {
	l, err := ParseLock("a.lock", []byte(wholeLock))
	if err != nil {
		t.Fatal(err)
	}
	l.Images[0].Where = []string{"a: \x1b[2J \"é\" \xff\n"}
	data, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if l.Images[0].Where[0] != "a: \x1b[2J \"é\" \xff\n" {
		t.Error("writing a lock changes it")
	}
	if l, err = ParseLock("a.lock", data); err != nil || l.Images[0].Where[0] != `a: \x1b[2J "é" \xff\n` {
		t.Errorf("got %q, %v", l.Images[0].Where, err)
	}
}

// TestDebianGrammar has dpkg as its judge: what is taken here is taken there.
func TestDebianGrammar(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip(err)
	}
	dpkg := func(what, value string) bool {
		return exec.Command("dpkg", "--validate-"+what, value).Run() == nil
	}
	for _, name := range []string{"g++", "a.", "0ad", "libc6", "a-b.c+d", "a", "-a", "a_", "", "a b"} {
		if IsPackageName(name) && !dpkg("pkgname", name) {
			t.Errorf("dpkg refuses the name %q", name)
		}
	}
	for _, version := range []string{"1", "0", "1:2", "999999999:1", "1.0--1", "1~", "1:1-0+deb12u1~bpo.1", "1-", "a", "1_", ":1", "1:", ""} {
		p := LockedPackage{Name: "xx", Version: version, Path: "x", Digest: DigestOf(nil)}
		if p.Validate() == nil && !dpkg("version", version) {
			t.Errorf("dpkg refuses the version %q", version)
		}
	}
	for _, arch := range []string{"amd64", "all", "kfreebsd-amd64", "-x", "a b", ""} {
		if architecture.MatchString(arch) && !dpkg("archname", arch) {
			t.Errorf("dpkg refuses the architecture %q", arch)
		}
	}
	// Every package that is installed here has a name and a version that are taken.
	status, err := os.ReadFile("/var/lib/dpkg/status")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(status)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Package: "); ok && !IsPackageName(name) {
			t.Errorf("name %q is refused", name)
		}
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "Version: "); ok && !packageVersion.MatchString(v) {
			t.Errorf("version %q is refused", v)
		}
	}
}

// FuzzLock: what is read can be written, and reads back as the same.
func FuzzLock(f *testing.F) {
	f.Add([]byte(wholeLock))
	f.Add([]byte(strings.ReplaceAll(wholeLock, "\n", "\r\n")))
	f.Add([]byte(strings.Replace(wholeLock, "libstdc++6", "-oDPkg::Pre-Invoke::=touch MARKER", 1)))
	f.Add([]byte("version: 1\nfoes:\n"))
	f.Add([]byte("{version: &a 1, images: [*a]}"))
	f.Add([]byte("version: !!binary MQ==\n<<: {images: []}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLock("a.lock", data)
		if err != nil {
			return
		}
		for _, p := range l.Packages {
			if strings.ContainsAny(p.Name, ", \t\n=/:~?!()*") || strings.HasPrefix(p.Name, "-") || strings.HasSuffix(p.Name, "-") {
				t.Errorf("name %q", p.Name)
			}
		}
		written, err := l.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseLock("a.lock", written)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if twice, err := again.Encode(); err != nil || !bytes.Equal(twice, written) {
			t.Errorf("%v\n%s\nis not\n%s", err, twice, written)
		}
	})
}
