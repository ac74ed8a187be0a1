package bundle

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"atoll/bundle/bounds"
)

const small = "name: box\nk3s: {version: v1.34.4+k3s1}\nstack: lab\n"

func TestParseDefinition(t *testing.T) {
	d, err := ParseDefinition("dir/appliance.yaml", []byte(small+"host:\n  # nothing yet\nignition: {butane: more.bu}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d.Platform != "linux/amd64" || d.Arch() != "amd64" || d.Base.Suite != "bookworm" || d.Disk.RootSize != 4 {
		t.Errorf("defaults are not set: %+v", d)
	}
	for _, place := range []string{"https://h.test/@scope/k3s", "me@here/k3s", "/srv/a@b/k3s", "file:///srv/a@b"} {
		if _, err := ParseDefinition("a.yaml", []byte("name: box\nk3s: {version: v1.34.4+k3s1, release: "+place+"}\nstack: lab\n")); err != nil {
			t.Error(err)
		}
	}
	if got := d.Path(d.Ignition.Butane); got != "dir/more.bu" {
		t.Errorf("Path = %q, want dir/more.bu", got)
	}
}

func TestParseDefinitionMistakes(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"empty", "", "a.yaml:1: definition is empty"},
		{"unknown field", small + "nmae: x\n", "a.yaml:4: nmae: unknown field"},
		{"nested", small + "host:\n  users:\n  - name: ann\n    keys: []\n", "a.yaml:7: host.users[0].keys: unknown field"},
		{"unknown without a value", small + "hots:\n", "a.yaml:4: hots: unknown field"},
		{"nested, without a value", small + "host:\n  users:\n  - name: ann\n    kyes:\n  userz: ~\n", "a.yaml:7: host.users[0].kyes: unknown field\na.yaml:8: host.userz: unknown field"},
		{"without a value, in a line", small + "host: {userz: }\n", "a.yaml:4: host.userz: unknown field"},
		{"missing for it has no value", "name:\nstack: lab\nk3s: {version: v1.34.4+k3s1}\n", "a.yaml:1: missing field name"},
		{"twice, once without a value", small + "host:\nhost: {hostname: x}\n", "a.yaml:5: host: field is given twice"},
		{"too many keys", small + strings.Repeat("x", 100) + manyKeys(5000), "a.yaml:1: YAML is too large or too deep: more than 4096 keys in a mapping"},
		{"wrong type", small + "images: busybox\n", "a.yaml:4: images: is string, want array"},
		{"not a map", "- a\n", "a.yaml:1: is array, want object"},
		{"missing", "name: box\nstack: lab\n", "a.yaml:1: missing field k3s"},
		{"pattern", "name: Box_1\nk3s: {version: v1.34.4}\nstack: lab\n", `a.yaml:1: name: "Box_1" does not match`},
		{"enum", "name: box\nk3s: {version: v1.34.4}\nstack: moon\n", `a.yaml:3: stack: "moon" is none of`},
		{"twice", small + "name: other\n", "a.yaml:4: name: field is given twice"},
		{"second document", small + "---\nname: b\n", "a.yaml:4: definition has a second YAML document"},
		{"alias", small + "images: [&a busybox, *a]\n", "a.yaml:4: images[1]: aliases are not allowed"},
		{"image", small + "images: ['a/UPPER']\n", "a.yaml:4: images[0]: "},
		{"login at the release", "name: box\nstack: lab\nk3s:\n  version: v1.34.4+k3s1\n  release: https://u:s3cret@h.test/k3s\n", "a.yaml:5: k3s.release: credentials do not go into the URL, which the lock repeats: put \"username\" and \"password\" for \"h.test\" under"},
		{"token at the release", "name: box\nstack: lab\nk3s: {version: v1.34.4+k3s1, release: 'HTTPS://s3cr?#et@h.test/k3s'}\n", "a.yaml:3: k3s.release: credentials do not go into the URL"},
		{"login at an archive", small + "base:\n  sources:\n  - deb http://h.test/@debian bookworm main\n  - deb [trusted=yes] https://u:s3cret@h.test/debian bookworm main\n", "a.yaml:7: base.sources[1]: credentials do not go into the URL"},
		{"root", small + "host: {users: [{name: root}]}\n", "a.yaml:4: host.users[0].name: root is not for login"},
		{"address", small + "host: {network: {interface: e0, addresses: [10.0.0.1]}}\n", `a.yaml:4: host.network.addresses[0]: "10.0.0.1" is not an address`},
		{"bomb", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b]\n", "aliases are not allowed"},
		{"deep", strings.Repeat("[", 200) + strings.Repeat("]", 200), "nested too deeply"},
		{"huge", small + strings.Repeat("#", bounds.Definition), "larger than"},
		{"syntax", "name: [\n", "a.yaml"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseDefinition("a.yaml", []byte(tc.in))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if err != nil && (strings.Contains(err.Error(), "s3cr") || strings.Contains(err.Error(), "sources[0]")) {
				t.Errorf("error tells a secret, or what is right: %v", err)
			}
		})
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: x\n", i)
	}
	return b.String()
}

// TestFieldsWithoutValue: all but those that must be there may be left without one.
func TestFieldsWithoutValue(t *testing.T) {
	d, err := ParseDefinition("a.yaml", []byte(small+"host:\n#  hostname: x\nimages:\nbase: {sources: , suite: ~}\ndisk: null\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != "box" || d.Base.Suite == "" || len(d.Images) > 0 {
		t.Errorf("got %+v", d)
	}
}

func TestParseDefinitionTellsAllAtOnce(t *testing.T) {
	_, err := ParseDefinition("a.yaml", []byte("naem: x\nstack: moon\nk3s: {version: 1}\n"))
	var first *DefinitionError
	if !errors.As(err, &first) || first.Line != 1 {
		t.Fatalf("got %v, want the first mistake on line 1", err)
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 4 {
		t.Errorf("got %d mistakes, want 4 (two of line 1):\n%v", n, err)
	}
}

func FuzzParseDefinition(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte(small + "base: {sources: ['deb [trusted=yes] http://h.test/debian bookworm main'], packages: [g++, -o=x]}\n"))
	f.Add([]byte("? {a: b}\n: c\n"))
	f.Add([]byte(small + "host:\nimages: [~]\nbase: {sources: }\n"))
	f.Add([]byte(small + "hots:\nhost: {userz: }\n"))
	f.Add([]byte(small + "host: {network: {interface: e0, addresses: [10.0.0.1/8], dns: [1.1.1.1]}, users: [{name: a, sudo: true}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) { _, _ = ParseDefinition("a.yaml", data) })
}

func TestChecksum(t *testing.T) {
	sum := func(in string) string {
		d, err := ParseDefinition("a.yaml", []byte(in))
		if err != nil {
			t.Fatal(err)
		}
		return d.Checksum().String()
	}
	if sum(small) != sum("# a comment\n"+small+"platform: linux/amd64\nhost: {hostname: x}\n") {
		t.Error("checksum changes with what a lock is not made from")
	}
	if sum(small) == sum(small+"images: [busybox]\n") {
		t.Error("checksum does not change with an image")
	}
}

func TestCanonicalReference(t *testing.T) {
	const digest = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for in, want := range map[string]string{
		"busybox":                          "docker.io/library/busybox:latest",
		"busybox:1.28":                     "docker.io/library/busybox:1.28",
		"index.docker.io/library/busybox":  "docker.io/library/busybox:latest",
		"registry-1.docker.io/library/x:1": "docker.io/library/x:1",
		"localhost:5000/x":                 "localhost:5000/x:latest",
		"quay.io/a/b:1" + digest:           "quay.io/a/b:1" + digest,
		"quay.io/a/b" + digest:             "quay.io/a/b" + digest,
		"a/Upper":                          "",
		"":                                 "",
	} {
		got, err := CanonicalReference(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("CanonicalReference(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}
