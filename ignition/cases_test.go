package ignition

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// These are cases of public bug reports about other tools, each with its whole kind.

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

const windowsButane = `variant: fcos
version: 1.4.0
storage:
  files:
  - path: /usr/local/bin/hello
    mode: 0755
    contents:
      inline: |
        #!/bin/sh
        echo hello
  - path: /etc/hello.env
    contents: {inline: "A=1\nB=2\n"}
systemd:
  units:
  - name: hello.service
    enabled: true
    contents: |
      [Service]
      ExecStart=/usr/local/bin/hello
      [Install]
      WantedBy=multi-user.target
    dropins:
    - name: a.conf
      contents: |
        [Service]
        Nice=1
`

// TestButaneWithCRLF wants the same node of a Butane file whatever its line ends are.
func TestButaneWithCRLF(t *testing.T) {
	in := lab(t)
	in.User = &Butane{Name: "user.bu", Data: []byte(windowsButane)}
	want := render(t, in)
	in.User.Data = []byte(crlf(windowsButane))
	if got := render(t, in); !reflect.DeepEqual(got, want) {
		t.Errorf("CRLF makes another node: got %+v", got)
	}
	if got := fileText(t, want, "/usr/local/bin/hello"); got != "#!/bin/sh\necho hello\n" {
		t.Errorf("script is %q", got)
	}
	wrong := strings.Replace(windowsButane, "    enabled: true", "    enabeld: true", 1)
	if lf, cr := userError(t, "", wrong), userError(t, "", crlf(wrong)); lf != cr || !strings.Contains(lf, "user.bu:16: systemd.units[0].enabeld: ") {
		t.Errorf("mistakes differ:\n%s\n%s", lf, cr)
	}
}

// TestScriptWithCRLF is about local files, which come as they are: what cannot run is
// refused by its name, and all else is left alone.
func TestScriptWithCRLF(t *testing.T) {
	const head = "variant: fcos\nversion: 1.4.0\nstorage:\n"
	dir := t.TempDir()
	for name, text := range map[string]string{
		"dos":            "#!/bin/sh\r\necho hello\r\n",
		"dos.py":         "#!/usr/bin/env python3\r\nprint(1)\r\n",
		"mixed":          "#!/bin/sh\nif true; then\r\necho; fi\r\n",
		"sourced.sh":     "export A=1\r\n",
		"unix":           "#!/bin/sh\necho hello\n",
		"archive":        "#!/bin/sh\nexit 0\n\x1f\x8b\xff\r\n\x00",
		"dos.env":        "A=1\r\nB=2\r\n",
		"known_hosts":    "host ssh-ed25519 AAAA\r\n",
		"tree/bin/first": "#!/bin/sh\r\n",
		"tree/text":      "text\r\n",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const why = " is a script whose lines end as on Windows, so that it cannot run: save it with LF line ends"
	for in, want := range map[string]string{
		"  files:\n  - path: /usr/local/bin/x\n    contents: {local: dos}\n":                            "user.bu:6: storage.files[0].contents: /usr/local/bin/x" + why,
		"  files:\n  - path: /opt/x\n    contents:\n      local: dos.py\n":                              "user.bu:7: storage.files[0].contents: /opt/x" + why,
		"  files:\n  - path: /a\n  - path: /opt/x\n    contents: {local: mixed}\n":                      "user.bu:7: storage.files[1].contents: /opt/x" + why,
		"  files:\n  - path: /etc/profile.d/x.sh\n    contents: {local: sourced.sh}\n":                  "user.bu:6: storage.files[0].contents: /etc/profile.d/x.sh" + why,
		"  files:\n  - path: /opt/x\n    contents: {inline: \"#!/bin/sh\\r\\necho\\r\\n\"}\n":           "user.bu:6: storage.files[0].contents: /opt/x" + why,
		"  files:\n  - path: /opt/x\n    contents: {source: 'data:;base64,IyEvYmluL3NoDQplY2hvDQo='}\n": "user.bu:6: storage.files[0].contents: /opt/x" + why,
		"  files:\n  - path: /a\n  trees:\n  - local: tree\n    path: /usr/local\n":                     "user.bu:5: storage.files: /usr/local/bin/first" + why,
		"  trees:\n  - local: tree\n": "user.bu:4: storage: /bin/first" + why,
		"  files:\n  - {path: /usr/local/bin/x, contents: {local: dos}}\n  - {path: /opt/y, contents: {local: dos}}\n":   "user.bu:6: storage.files[1].contents: /opt/y" + why,
		"  files:\n  - {path: /usr/local/bin/x, contents: {local: dos}}\n  - {path: /opt/z, contents: {local: mixed}}\n": "user.bu:5: storage.files[0].contents: /usr/local/bin/x" + why,
	} {
		for _, text := range []string{head + in, crlf(head + in)} {
			if got := userError(t, dir, text); !strings.Contains(got, want) {
				t.Errorf("%s: got %q, want %q", in, got, want)
			}
		}
	}
	in := lab(t)
	in.User = &Butane{Name: "user.bu", FilesDir: dir, Data: []byte(crlf(head + "  files:\n" +
		"  - {path: /opt/unix, contents: {local: unix}}\n  - {path: /opt/archive, contents: {local: archive}}\n" +
		"  - {path: /etc/dos.env, contents: {local: dos.env}}\n  - {path: /etc/ssh/ssh_known_hosts, contents: {local: known_hosts}}\n"))}
	c := render(t, in)
	for path, want := range map[string]string{
		"/opt/unix": "#!/bin/sh\necho hello\n", "/opt/archive": "#!/bin/sh\nexit 0\n\x1f\x8b\xff\r\n\x00",
		"/etc/dos.env": "A=1\r\nB=2\r\n", "/etc/ssh/ssh_known_hosts": "host ssh-ed25519 AAAA\r\n",
	} {
		if got := fileText(t, c, path); got != want {
			t.Errorf("%s is %q, want it as it was", path, got)
		}
	}
}

// TestUnitWithCRLF holds why units are not refused: systemd reads them.
func TestUnitWithCRLF(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed (package systemd)")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "x.service")
	verify := func(text string) string {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(analyze, "verify", "--man=no", "--generators=no", path)
		cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=warning")
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := verify(crlf("[Service]\nType=oneshot\nExecStart=/bin/sh -c \\\n  true\n")); strings.Contains(out, path) {
		t.Errorf("a unit with CRLF: %s", out)
	}
	if out := verify(crlf("[Service]\nType=oneshot\nMood=1\nExecStart=/bin/sh\n")); !strings.Contains(out, "Mood") {
		t.Errorf("an unknown key in it is not told: %q", out)
	}
}
