package ignition

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"atoll/bundle/bounds"
)

const butaneHead = "variant: fcos\nversion: 1.4.0\n"

// TestLocalByOtherNames: YAML has several ways to write one key.
func TestLocalByOtherNames(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(outside, []byte("of the host"), 0o600), os.Symlink(outside, filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"local", `"\x6cocal"`, "!!binary bG9jYWw=", "*k ", "!!str local"} {
		got := userError(t, dir, butaneHead+"storage:\n  files:\n  - path: &k local\n  - path: /a\n    contents:\n      ? "+key+"\n      : link\n")
		if !strings.Contains(got, "leads out of") {
			t.Errorf("%s: got %q", key, got)
		}
	}
	for _, name := range []string{`"l\x69nk"`, "!!binary bGluaw==", "*n"} {
		got := userError(t, dir, butaneHead+"storage:\n  files:\n  - path: &n link\n  - path: /a\n    contents:\n      local: "+name+"\n")
		if !strings.Contains(got, "leads out of") {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// TestButaneThatGrows has small files that would become gigabytes.
func TestButaneThatGrows(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "half"), make([]byte, bounds.FirstBoot/2), 0o600); err != nil {
		t.Fatal(err)
	}
	files := func(n int, contents string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "  - path: /f%d\n    contents: %s\n", i, contents)
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"one local file, often": "storage:\n  files:\n" + files(10_000, "{local: half}"),
		"aliases of one":        "storage:\n  files:\n  - path: /f\n    contents: &c {local: half}\n" + files(10_000, "*c"),
		"aliases of a text":     "storage:\n  files:\n  - path: /f\n    contents: &c {inline: '" + strings.Repeat("x", bounds.FirstBoot/4) + "'}\n" + files(10_000, "*c"),
		"aliases of aliases":    "storage:\n  files:\n  - &a {path: /a, contents: {inline: x}}\n" + strings.Repeat("  - *a\n", 100_000),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got := userError(t, dir, butaneHead+text)
		runtime.ReadMemStats(&after)
		if !strings.Contains(got, "put large files into") && !strings.Contains(got, "YAML is too large") {
			t.Errorf("%s: got %.300q", name, got)
		}
		if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 256 {
			t.Errorf("%s: allocates %d MiB", name, mib)
		}
	}
}

func FuzzUserConfig(f *testing.F) {
	for _, text := range []string{
		"", "storage:\n  files:\n  - path: /a\n    contents: {inline: x}\n", "storage:\n  files:\n  - path: /a\n    contents: {local: link}\n",
		"storage:\n  trees:\n  - local: tree\n", "a: &a [*a]\n", "systemd:\n  units:\n  - name: a.service\n    contents: |\n      [Unit]\n",
		"passwd:\n  users:\n  - name: a\n    password_hash: $6$x\n", "storage:\n  files:\n  - &f\n    path: /a\n  - <<: *f\n    path: /b\n",
		"storage: {files: [{path: /a, contents: {source: 'http://h.test/x'}}]}\n", "ignition:\n  config:\n    merge:\n    - inline: '{}'\n",
		"storage:\n  disks:\n  - device: /dev/vda\n    wipe_table: true\n", "storage:\n  luks:\n  - name: a\n    device: /dev/vda\n    key_file: {local: ../x}\n",
	} {
		f.Add([]byte(butaneHead + text))
		f.Add([]byte("variant: flatcar\nversion: 1.0.0\n" + text))
	}
	dir := f.TempDir()
	outside := filepath.Join(f.TempDir(), "secret")
	const secret = "a secret of the host"
	if err := errors.Join(os.WriteFile(outside, []byte(secret), 0o600), os.Symlink(outside, filepath.Join(dir, "link")), os.Mkdir(filepath.Join(dir, "tree"), 0o700)); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := userConfig(Butane{Name: "user.bu", Data: data, FilesDir: dir})
		if err != nil {
			return
		}
		for _, file := range config.Storage.Files {
			if source := file.Contents.Source; source != nil && (strings.Contains(*source, "secret%20of") || !strings.HasPrefix(*source, "data:") && *source != "") {
				t.Errorf("%s has %q", file.Path, *source)
			}
		}
	})
}
