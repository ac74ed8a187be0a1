package ignition

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/ignition/v2/config/v3_3"
	"github.com/coreos/ignition/v2/config/v3_3/types"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/vincent-petithory/dataurl"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

var update = flag.Bool("update", false, "write the golden files")

var epoch = time.Unix(1700000000, 0)

// input makes an input out of an archive's appliance.yaml and, if it has one, user.bu.
func input(t *testing.T, a *txtar.Archive) Input {
	t.Helper()
	in := Input{Bundle: bundle.DigestOf([]byte("bundle")), Node: Blob{Digest: bundle.DigestOf([]byte("node")), Offset: 1536, Size: 4096}, Epoch: epoch}
	dir := t.TempDir()
	for _, f := range a.Files {
		switch {
		case f.Name == "appliance.yaml":
			d, err := bundle.ParseDefinition("appliance.yaml", f.Data)
			if err != nil {
				t.Fatal(err)
			}
			in.Definition = d
		case f.Name == "bundle.pub":
			in.Key = f.Data
		case f.Name == "user.bu":
			in.User = &Butane{Name: "user.bu", Data: f.Data, FilesDir: dir}
		case f.Name != "want.ign":
			if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return in
}

func TestRender(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal("no test data", err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			in := input(t, a)
			got, err := Render(in)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := Render(in); err != nil || !bytes.Equal(got, again) {
				t.Errorf("rendered twice, bytes differ (%v)", err)
			}
			if *update {
				a.Files = append(without(a.Files, "want.ign"), txtar.File{Name: "want.ign", Data: got})
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, f := range a.Files {
				if f.Name == "want.ign" && !bytes.Equal(f.Data, got) {
					t.Errorf("%s differs (go test ./ignition -update writes it):\n%s", name, got)
				}
			}
			judge(t, got)
			checkRepeatable(t, got)
		})
	}
}

func without(files []txtar.File, name string) []txtar.File {
	var out []txtar.File
	for _, f := range files {
		if f.Name != name {
			out = append(out, f)
		}
	}
	return out
}

// judge lets Debian's Ignition say what it thinks of a configuration.
func judge(t *testing.T, config []byte) {
	t.Helper()
	validate, err := exec.LookPath("ignition-validate")
	if err != nil {
		t.Log("ignition-validate is not installed (package ignition): only the library judges")
		return
	}
	cmd := exec.Command(validate, "-")
	cmd.Stdin = bytes.NewReader(config)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("ignition-validate: %v\n%s", err, out)
	}
}

func parse(t *testing.T, config []byte) types.Config {
	t.Helper()
	c, _, err := v3_3.Parse(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func checkRepeatable(t *testing.T, config []byte) {
	t.Helper()
	c := parse(t, config)
	for _, f := range c.Storage.Files {
		if f.Contents.Source != nil && (f.Overwrite == nil || !*f.Overwrite) {
			t.Errorf("file %s is not overwritten: a second run of Ignition fails", f.Path)
		}
	}
	for _, l := range c.Storage.Links {
		if l.Overwrite == nil || !*l.Overwrite {
			t.Errorf("link %s is not overwritten: a second run of Ignition fails", l.Path)
		}
	}
}

// fileText is the text of a file in a configuration.
func fileText(t *testing.T, c types.Config, path string) string {
	t.Helper()
	for _, f := range c.Storage.Files {
		if f.Path == path {
			u, err := dataurl.DecodeString(*f.Contents.Source)
			if err != nil {
				t.Fatal(err)
			}
			return string(u.Data)
		}
	}
	t.Fatalf("configuration has no %s", path)
	return ""
}

func render(t *testing.T, in Input) types.Config {
	t.Helper()
	data, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, data)
}

func lab(t *testing.T) Input {
	t.Helper()
	return input(t, txtar.Parse([]byte("-- appliance.yaml --\nname: lab\nk3s: {version: v1.34.4+k3s1}\nstack: lab\n")))
}

// TestHostileValues checks that no value of a definition can become another line.
func TestHostileValues(t *testing.T) {
	in := lab(t)
	in.Definition.Host.Users = []bundle.User{{Name: "ann", SSHAuthorizedKeys: []string{"ssh-ed25519 AAAA\"'\n  - name: root # {{.}} ${x} %s"}}}
	c := render(t, in)
	if len(c.Passwd.Users) != 1 || string(c.Passwd.Users[0].SSHAuthorizedKeys[0]) != in.Definition.Host.Users[0].SSHAuthorizedKeys[0] {
		t.Errorf("key did not come through as it is: %+v", c.Passwd.Users)
	}
	in = lab(t)
	in.Definition.Host.Network = bundle.Network{Interface: "eth0\n[Route]\nGateway=192.0.2.1"}
	if _, err := Render(in); err == nil || !strings.Contains(err.Error(), "control character") {
		t.Errorf("line break in an interface's name: got %v", err)
	}
}

func TestNoBlob(t *testing.T) {
	in := lab(t)
	in.Node.Size = 0
	if _, err := Render(in); err == nil {
		t.Error("a node's program of no bytes was taken")
	}
}

func TestUserWins(t *testing.T) {
	in := lab(t)
	in.User = &Butane{Name: "user.bu", Data: []byte(`variant: flatcar
version: 1.0.0
storage:
  files:
  - path: /etc/rancher/k3s/resolv.conf
    contents: {inline: "nameserver 192.0.2.53"}
  - path: /etc/only-a-mode
    mode: 0600
systemd:
  units:
  - name: k3s.service
    dropins: [{name: 90-mine.conf, contents: "[Service]\nNice=1\n"}]
`)}
	c := render(t, in)
	if got := fileText(t, c, "/etc/rancher/k3s/resolv.conf"); got != "nameserver 192.0.2.53" {
		t.Errorf("resolv.conf is %q, want the user's", got)
	}
	for _, u := range c.Systemd.Units {
		if u.Name == "k3s.service" && (len(u.Dropins) != 1 || u.Contents == nil) {
			t.Errorf("k3s.service lost something in the merge: %+v", u)
		}
	}
}

// TestQuotaOfDocs renders a node with the drop-in of docs/registry.md for a unit that is Atoll's.
func TestQuotaOfDocs(t *testing.T) {
	doc, err := os.ReadFile("../docs/registry.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(doc), "(`ignition: {butane: site.bu}`):\n\n```yaml\n")
	text, _, closed := strings.Cut(text, "```\n")
	if !ok || !closed {
		t.Fatal("docs/registry.md has no drop-in for the quota")
	}
	const unit = "atoll-registry-writable.service"
	find := func(c types.Config) types.Unit {
		t.Helper()
		i := slices.IndexFunc(c.Systemd.Units, func(u types.Unit) bool { return u.Name == unit })
		if i < 0 {
			t.Fatalf("no %s", unit)
		}
		return c.Systemd.Units[i]
	}
	in := lab(t)
	before := find(render(t, in))
	in.User = &Butane{Name: "site.bu", Data: []byte(text)}
	after := find(render(t, in))
	if before.Contents == nil || after.Contents == nil || *after.Contents != *before.Contents || after.Enabled == nil || !*after.Enabled {
		t.Errorf("%s lost something in the merge: %+v", unit, after)
	}
	var start string
	for line := range strings.Lines(*before.Contents) {
		if strings.HasPrefix(line, "ExecStart=") {
			start = strings.TrimSpace(line)
		}
	}
	want := "[Service]\nExecStart=\n" + start + " --quota 60\n"
	if len(after.Dropins) != 1 || after.Dropins[0].Name != "quota.conf" || after.Dropins[0].Contents == nil || *after.Dropins[0].Contents != want {
		t.Errorf("drop-ins are %+v, want quota.conf with\n%s", after.Dropins, want)
	}
}

// TestMergedIsChecked has a link of the user's where Atoll has a folder.
func TestMergedIsChecked(t *testing.T) {
	in := lab(t)
	in.User = &Butane{Name: "user.bu", Data: []byte("variant: fcos\nversion: 1.4.0\nstorage:\n  links:\n  - {path: /etc/atoll, target: /tmp}\n")}
	if _, err := Render(in); err == nil || !strings.Contains(err.Error(), "checking merged") {
		t.Errorf("got %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	in := lab(t)
	in.User = &Butane{Name: "user.bu", Data: []byte("variant: fcos\nversion: 1.4.0\nstorage:\n  files:\n  - path: /big\n    contents: {inline: '" + strings.Repeat("%", bounds.FirstBoot-1000) + "'}\n")}
	if _, err := Render(in); err == nil || !strings.Contains(err.Error(), "put large files into") {
		t.Errorf("got %v", err)
	}
}

func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed (package systemd)")
	}
	// The units' programs exist on a node only.
	dir, bin := t.TempDir(), filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, u := range render(t, lab(t)).Systemd.Units {
		if u.Contents == nil {
			continue
		}
		text := strings.NewReplacer("/usr/local/bin/atoll", bin, "/usr/local/bin/k3s", bin, "/usr/local/lib/atoll/", bin+" ",
			"/usr/bin/journalctl", bin, "/sbin/modprobe", bin, "/lib/systemd/systemd-networkd-wait-online", bin).Replace(*u.Contents)
		path := filepath.Join(dir, u.Name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	cmd := exec.Command(analyze, append([]string{"verify", "--man=no", "--generators=no"}, paths...)...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":", "SYSTEMD_LOG_LEVEL=warning")
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte(dir)) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestScripts(t *testing.T) {
	names, err := filepath.Glob("files/*.sh")
	if err != nil || len(names) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, name := range append(names, "files/initramfs/mend", "files/initramfs/report") {
		if out, err := exec.Command("sh", "-n", name).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// userError renders with the user's Butane and gives the error, which must be one of
// a line in it.
func userError(t *testing.T, dir, text string) string {
	t.Helper()
	in := lab(t)
	in.User = &Butane{Name: "user.bu", Data: []byte(text), FilesDir: dir}
	_, err := Render(in)
	if err == nil {
		t.Fatal("was taken")
	}
	var de *bundle.DefinitionError
	if !errors.As(err, &de) && !strings.HasPrefix(err.Error(), "parsing user.bu") {
		t.Errorf("error names no place in user.bu: %v", err)
	}
	return err.Error()
}
