package bundle

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// These are cases of public bug reports about other tools, each with its whole kind.

// TestVersion is kubernetes/kops#2098: of a version that no release can have, the nearest
// that one has is told.
func TestVersion(t *testing.T) {
	for in, want := range map[string]string{
		"v1.34.4+k3s1":          "",
		"v1.34.4+k3s12":         "",
		"v1.17.0+k3s.1":         "",
		"v1.34.4-rc1+k3s1":      "",
		"v1.34.4-alpha.2+k3s1":  "",
		"v1.34.4+k3s-1a2b3c4d":  "", // a build of a commit
		"v1.34.4+lab1":          "", // a build of one's own
		"v1.34.4-k3s1":          "did you mean v1.34.4+k3s1?",
		"1.34.4+k3s1":           "did you mean v1.34.4+k3s1?",
		"v1.34.4":               "did you mean v1.34.4+k3s1?",
		"1.34.4":                "did you mean v1.34.4+k3s1?",
		"v1.34.4+k3s":           "did you mean v1.34.4+k3s1?",
		"v1.34.4+k3":            "did you mean v1.34.4+k3s1?",
		"V1.34.4+k3s1":          "did you mean v1.34.4+k3s1?",
		"v1.34.4+K3S1":          "did you mean v1.34.4+k3s1?",
		"v1.34.4_k3s1":          "did you mean v1.34.4+k3s1?",
		"v1.34.4 k3s1":          "did you mean v1.34.4+k3s1?",
		"v1.34.4 + k3s1":        "did you mean v1.34.4+k3s1?",
		"' v1.34.4+k3s1 '":      "did you mean v1.34.4+k3s1?",
		"v1.34.4.k3s1":          "did you mean v1.34.4+k3s1?",
		"v1.34.4k3s1":           "did you mean v1.34.4+k3s1?",
		"v1.34.4++k3s1":         "did you mean v1.34.4+k3s1?",
		"v1.34.4%2Bk3s1":        "did you mean v1.34.4+k3s1?",
		"v1.34.4%2bk3s1":        "did you mean v1.34.4+k3s1?",
		"v 1.34.4+k3s1":         "did you mean v1.34.4+k3s1?",
		"v1.34.4-k3s12":         "did you mean v1.34.4+k3s12?",
		"k3s-v1.34.4-k3s2":      "did you mean v1.34.4+k3s2?",
		"rancher/k3s:v1.34.4":   "is no version of k3s, which is like v1.34.4+k3s1",
		"v1.34.4-rc1":           "did you mean v1.34.4-rc1+k3s1?",
		"v1.34.4-rc1-k3s1":      "did you mean v1.34.4-rc1+k3s1?",
		"v1.34.4+rc1+k3s1":      "did you mean v1.34.4-rc1+k3s1?",
		"V1.34.4-RC1+k3s1":      "did you mean v1.34.4-rc1+k3s1?",
		"v1.34":                 "is no version of k3s, which is like v1.34.4+k3s1",
		"latest":                "is no version of k3s, which is like v1.34.4+k3s1",
		"''":                    "is no version of k3s, which is like v1.34.4+k3s1",
		"v1.34.4+":              "did you mean v1.34.4+k3s1?",
		"v1.34.4+k3s1/../../x":  "is no version of k3s, which is like v1.34.4+k3s1",
		"v1.34.4+k3s1?x=y":      "is no version of k3s, which is like v1.34.4+k3s1",
		"\"v1.34.4+k3s1\\n\"":   "did you mean v1.34.4+k3s1?",
		"\"v1.34.4+k3s1\\r\"":   "did you mean v1.34.4+k3s1?",
		"v1.34.4+k3s1-dirty.x":  "is no version of k3s, which is like v1.34.4+k3s1",
		"v1.34.4-k3s1-amd64-x":  "is no version of k3s, which is like v1.34.4+k3s1",
		"v1.34.4+k3s1 # a note": "",
	} {
		_, err := ParseDefinition("dir/a.yaml", []byte("name: box\nstack: lab\nk3s:\n  # which\n  version: "+in+"\n"))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", in, err)
		case want != "" && (err == nil || !strings.HasPrefix(err.Error(), "dir/a.yaml:5: k3s.version: ") || !strings.HasSuffix(err.Error(), want)):
			t.Errorf("%s: got %v, want %q", in, err, want)
		case want != "" && strings.Count(err.Error(), "k3s.version") != 1:
			t.Errorf("%s: told twice: %v", in, err)
		}
		// What is proposed must be right itself.
		if _, meant, ok := strings.Cut(want, "did you mean "); ok && !release.MatchString(strings.TrimSuffix(meant, "?")) {
			t.Errorf("%s: %s is wrong, too", in, meant)
		}
	}
}

// TestVersionIsNoTag makes sure that a plus gets into no place of a bundle where it is not
// legal: names in the index must be references.
func TestVersionIsNoTag(t *testing.T) {
	for _, ref := range []string{"docker.io/rancher/k3s:v1.34.4+k3s1", "docker.io/rancher/k3s:v1.34.4%2Bk3s1"} {
		if got, err := CanonicalReference(ref); err == nil {
			t.Errorf("%s was taken as %s", ref, got)
		}
	}
	const legal = "docker.io/rancher/k3s:v1.34.4-k3s1"
	got, err := CanonicalReference(legal)
	if err != nil || refName(got) != legal || referenceOf(refName(got), DigestOf(nil)) != legal {
		t.Errorf("%s became %s, %v", legal, got, err)
	}
}

// TestDefinitionWithCRLF is apache/camel-karavan#1259 for our own files: line ends change
// neither what a definition and a lock say nor the lines of their mistakes.
func TestDefinitionWithCRLF(t *testing.T) {
	const text = `# an appliance
name: box
k3s:
  version: v1.34.4+k3s1   # as tagged
  release: |
    http://h.test/rel
stack: "lab"
images:
- busybox:1
- 'quay.io/a/b:2'
base:
  packages: [vim]
  sources:
  - >-
    deb http://h.test/debian
    bookworm main
  - "deb http://h.test/security
    bookworm main"
host:
  hostname: box
  users:
  - name: ann
    sshAuthorizedKeys:
    - |
      ssh-ed25519 AAAA ann
    - ssh-ed25519 BBBB ann
`
	crlf := strings.ReplaceAll(text, "\n", "\r\n")
	a, err := ParseDefinition("a.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]string{"CRLF": crlf, "CRLF, none at the end": strings.TrimSuffix(crlf, "\r\n"), "byte order mark": "\ufeff" + crlf} {
		b, err := ParseDefinition("a.yaml", []byte(other))
		if err != nil {
			t.Fatal(err)
		}
		if name == "CRLF" && !reflect.DeepEqual(a, b) || a.Checksum() != b.Checksum() {
			t.Errorf("%s: definitions differ:\n%+v\n%+v", name, a, b)
		}
		if s := fmt.Sprintf("%q", fmt.Sprint(b)); strings.Contains(s, `\r`) {
			t.Errorf("%s: a carriage return is left: %s", name, s)
		}
	}
	wrong := strings.NewReplacer("lab", "moon", "hostname: box\n", "hostname: box\n  mood: 1\n").Replace(text)
	_, errLF := ParseDefinition("a.yaml", []byte(wrong))
	_, errCRLF := ParseDefinition("a.yaml", []byte(strings.ReplaceAll(wrong, "\n", "\r\n")))
	if errLF == nil || errCRLF == nil || errLF.Error() != errCRLF.Error() ||
		!strings.Contains(errLF.Error(), "a.yaml:7: stack: ") || !strings.Contains(errLF.Error(), "a.yaml:21: host.mood: ") {
		t.Errorf("mistakes differ:\n%v\n%v", errLF, errCRLF)
	}

	l := Lock{Definition: a.Checksum(), Manifests: DigestOf(nil), Platform: a.Platform, Epoch: time.Unix(1<<30, 0),
		Images: []LockedImage{{Reference: "docker.io/library/busybox:1", Digest: DigestOf(nil), Manifest: DigestOf(nil), Tier: TierRequired, Where: []string{"a", "b"}}},
		Files:  []LockedFile{{Name: "k3s", URL: "http://h.test/v1.34.4+k3s1/k3s", Digest: DigestOf(nil)}}}
	written, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseLock("a.lock", bytes.ReplaceAll(written, []byte("\n"), []byte("\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := read.Encode(); err != nil || !bytes.Equal(again, written) {
		t.Errorf("a lock with CRLF became (%v):\n%q", err, again)
	}
}
