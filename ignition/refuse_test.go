package ignition

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRefused(t *testing.T) {
	const head = "variant: fcos\nversion: 1.4.0\n"
	for _, tc := range []struct{ name, in, want string }{
		{"empty", "", "user.bu:1: file is empty"},
		{"syntax", head + "storage: [\n", "parsing user.bu: yaml: line "},
		{"second document", head + "---\na: b\n", "user.bu:3: file has a second YAML document"},
		{"unknown key", head + "storage:\n  files:\n  - path: /a\n    mood: 1\n", "user.bu:6: storage.files[0].mood: "},
		{"relative path", head + "storage:\n  files:\n  - path: a\n", "user.bu:5: storage.files[0].path: path not absolute"},
		{"newer", "variant: fcos\nversion: 1.5.0\n", `variant "fcos" version "1.5.0" is not supported`},
		{"other variant", "variant: openshift\nversion: 4.10.0\n", `variant "openshift" version "4.10.0" is not supported`},
		{"no variant", "storage: {}\n", `variant "" version "" is not supported`},
		{"bad unit", head + "systemd:\n  units:\n  - name: a.service\n    contents: '[Unit'\n", "user.bu:6: systemd.units[0].contents: "},
		{"append", head + "storage:\n  files:\n  - path: /a\n    append: [{inline: x}]\n", "user.bu:6: storage.files[0].append: append is refused"},
		{"kernel arguments", head + "kernel_arguments:\n  should_exist: [quiet]\n", "user.bu:4: kernel_arguments: kernel arguments are refused"},
		{"http", head + "storage:\n  files:\n  - path: /a\n    contents: {source: 'https://192.0.2.1/a'}\n", `user.bu:6: storage.files[0].contents.source: "https://192.0.2.1/a" is refused: the node has no network`},
		{"s3", head + "storage:\n  files:\n  - path: /a\n    contents: {source: 's3://b/a'}\n", "the node has no network"},
		{"tftp", head + "storage:\n  files:\n  - path: /a\n    contents: {source: 'tftp://192.0.2.1/a'}\n", "the node has no network"},
		{"remote CA", head + "ignition:\n  security:\n    tls:\n      certificate_authorities:\n      - source: https://192.0.2.1/ca\n", "user.bu:7: ignition.security.tls.certificate_authorities[0].source: "},
		{"remote key", head + "storage:\n  luks:\n  - name: l\n    device: /dev/vdb\n    key_file: {source: 'https://192.0.2.1/k'}\n", "user.bu:7: storage.luks[0].key_file.source: "},
		{"merge", head + "ignition:\n  config:\n    merge: [{inline: '{\"ignition\":{\"version\":\"3.3.0\"}}'}]\n", "user.bu:5: ignition.config.merge: other configurations are refused"},
		{"replace", head + "ignition:\n  config:\n    replace: {source: 'https://192.0.2.1/c'}\n", "user.bu:5: ignition.config.replace: other configurations are refused"},
		{"wipe table", head + "storage:\n  disks:\n  - device: /dev/vdb\n    wipe_table: true\n", "user.bu:6: storage.disks[0].wipe_table: wipe_table is refused"},
		{"wipe partition", head + "storage:\n  disks:\n  - device: /dev/vdb\n    partitions:\n    - number: 1\n      wipe_partition_entry: true\n", "user.bu:8: storage.disks[0].partitions[0].wipe_partition_entry: "},
		{"wipe file system", head + "storage:\n  filesystems:\n  - device: /dev/vdb\n    format: ext4\n    wipe_filesystem: true\n", "user.bu:7: storage.filesystems[0].wipe_filesystem: "},
		{"wipe volume", head + "storage:\n  luks:\n  - name: l\n    device: /dev/vdb\n    wipe_volume: true\n", "user.bu:7: storage.luks[0].wipe_volume: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := userError(t, "", tc.in); !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestRefusedAllAtOnce(t *testing.T) {
	got := userError(t, "", "variant: fcos\nversion: 1.4.0\nkernel_arguments: {should_exist: [a]}\nstorage:\n  files:\n  - {path: /a, append: [{inline: x}]}\n")
	if strings.Count(got, "user.bu:") != 2 {
		t.Errorf("want both mistakes at once, got %q", got)
	}
}

func TestLocal(t *testing.T) {
	outside := t.TempDir()
	dir := filepath.Join(t.TempDir(), "real")
	for name, text := range map[string]string{filepath.Join(outside, "secret"): "secret", filepath.Join(dir, "in"): "inside", filepath.Join(dir, "tree/a"): "a"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"link": filepath.Join(outside, "secret"), "dir": outside, "good": "in", "tree/out": filepath.Join(outside, "secret")} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "in"), 6); err != nil {
		t.Fatal(err)
	}
	big, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	if err := big.Truncate(1 << 40); err != nil { // sparse: reading it would not end
		t.Fatal(err)
	}
	big.Close()
	text := func(local string) string {
		return "variant: fcos\nversion: 1.4.0\nstorage:\n  files:\n  - path: /a\n    contents:\n      local: " + local + "\n"
	}
	for local, want := range map[string]string{
		"../x": "no such file", "link": "leads out of", "dir/secret": "leads out of", "../../" + filepath.Base(filepath.Dir(outside)): "user.bu:7: ",
		"none": "no such file", "pipe": "not a regular file", "big": "more than 1048576 bytes",
	} {
		if got := userError(t, dir, text(local)); !strings.Contains(got, want) || !strings.Contains(got, "user.bu:7: local: ") {
			t.Errorf("%s: got %q, want %q", local, got, want)
		}
	}
	if got := userError(t, "", text("in")); !strings.Contains(got, "no folder of files") {
		t.Errorf("without a folder: got %q", got)
	}
	if got := userError(t, dir, "variant: fcos\nversion: 1.4.0\nstorage:\n  trees:\n  - local: dir\n"); !strings.Contains(got, "leads out of") {
		t.Errorf("tree through a link: got %q", got)
	}
	in := lab(t)
	in.User = &Butane{Name: "user.bu", FilesDir: dir, Data: []byte(text("good") + "  trees:\n  - local: tree\n    path: /t\n")}
	c := render(t, in)
	if fileText(t, c, "/a") != "inside" || fileText(t, c, "/t/a") != "a" {
		t.Error("files inside the folder were not taken")
	}
	data, _ := Render(in)
	if strings.Contains(string(data), "secret\"") && strings.Contains(string(data), "data:,secret") {
		t.Error("a file outside of the folder is in the configuration")
	}
}
