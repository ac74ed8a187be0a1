package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"atoll/bundle"
)

// apt is a private root of Debian's apt: the machine's keys, proxies and programs,
// but no package installed and only the sources of one suite. It needs no
// privileges and changes nothing outside of its folder.
type apt struct {
	dir   string
	suite string
}

// newApt makes the root. Its owner removes it with close.
func newApt(ctx context.Context, base bundle.Base, arch string) (_ *apt, err error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, fmt.Errorf("looking for Debian packages: %w (apt-get is part of the package apt; it runs on Debian and its kin)", err)
	}
	dir, err := os.MkdirTemp("", "atoll-apt-")
	if err != nil {
		return nil, fmt.Errorf("looking for Debian packages: %w", err)
	}
	a := &apt{dir: dir, suite: base.Suite}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "sources", "empty"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("looking for Debian packages: %w", err)
		}
	}
	if err := a.writeSources(base); err != nil {
		return nil, err
	}
	if err := a.writeConfig(ctx, arch); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *apt) close() { os.RemoveAll(a.dir) }

func (a *apt) write(name, content string) error {
	if err := os.WriteFile(filepath.Join(a.dir, name), []byte(content), 0o644); err != nil {
		return fmt.Errorf("looking for Debian packages: %w", err)
	}
	return nil
}

// writeConfig makes the configuration that all calls run with. The machine's own
// files are not read again (they may hold hooks), only their Acquire part is taken
// over, and where logins are: that is how archives are reached.
func (a *apt) writeConfig(ctx context.Context, arch string) error {
	acquire, err := exec.CommandContext(ctx, "apt-config", "dump", "Acquire", "Dir::Etc::netrc", "Dir::Etc::netrcparts").Output()
	if err != nil {
		return fmt.Errorf("reading the machine's apt configuration: %w", err)
	}
	var b strings.Builder
	b.Write(acquire)
	for _, kv := range [][2]string{
		{"Dir::Etc::main", "/dev/null"},
		{"Dir::Etc::parts", a.dir + "/empty"},
		{"Dir::Etc::sourcelist", "/dev/null"},
		{"Dir::Etc::sourceparts", a.dir + "/sources"},
		{"Dir::Etc::preferences", "/dev/null"},
		{"Dir::Etc::preferencesparts", a.dir + "/empty"},
		{"Dir::State", a.dir},
		{"Dir::State::lists", a.dir + "/lists"},
		{"Dir::State::status", a.dir + "/status"},
		{"Dir::Cache", a.dir + "/cache"},
		{"Dir::Log", a.dir},
		{"APT::Architecture", arch},
		{"APT::Architectures", arch},
		{"APT::Install-Recommends", "false"},
		{"APT::Update::Error-Mode", "any"}, // else apt goes on with half of the lists
		{"APT::Sandbox::User", ""},         // the folder is ours alone
		{"Acquire::Languages", "none"},
		{"Acquire::ForceHash", "SHA256"},
		{"Acquire::Retries", "3"},
	} {
		fmt.Fprintf(&b, "%s %q;\n", kv[0], kv[1])
	}
	return errors.Join(a.write("apt.conf", b.String()), a.write("status", ""))
}

// run gives what a program of apt prints.
func (a *apt) run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(a.dir, "apt.conf"), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, told bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &told
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return "", cause
		}
		if words := complaints(told.String()); words != "" {
			return "", errors.New(words)
		}
		return "", fmt.Errorf("%s: %w", program, err)
	}
	return out.String(), nil
}

// complaints are the errors among what apt says, in one line.
func complaints(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "E: "); ok {
			out = append(out, rest)
		}
	}
	return strings.Join(out, "; ")
}

// machineSources is where a Debian machine keeps its sources.
const machineSources = "/etc/apt"

// writeSources gives the root its sources: the definition's, or the machine's of
// the same suite.
func (a *apt) writeSources(base bundle.Base) error {
	if len(base.Sources) > 0 {
		content := strings.Join(base.Sources, "\n") + "\n"
		if err := refuseLogin("base.sources", content); err != nil {
			return err
		}
		return a.write("sources/base.list", content)
	}
	n := 0
	list, err := filepath.Glob(machineSources + "/sources.list.d/*")
	if err != nil {
		return err
	}
	for _, path := range append([]string{machineSources + "/sources.list"}, list...) {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // absent, or not for us: what matters is whether any is left
		}
		content := ""
		switch filepath.Ext(path) {
		case ".list":
			content = oneLineSources(string(data), base.Suite)
		case ".sources":
			content = deb822Sources(string(data), base.Suite)
		}
		if content == "" {
			continue
		}
		n++
		if err := refuseLogin(path, content); err != nil {
			return err
		}
		if err := a.write("sources/"+filepath.Base(path), content); err != nil {
			return err
		}
	}
	if n == 0 {
		return fmt.Errorf("this machine has no apt sources of Debian %s: name some under base.sources, like \"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://MIRROR/debian %s main\"", base.Suite, base.Suite)
	}
	return nil
}

// loginInURL finds a user or a password in a URL, and the host behind it.
var loginInURL = regexp.MustCompile(`(https?)://[^\s/@]*@([^\s/]*)`)

// refuseLogin refuses sources with a login in their URL: what apt says about them, and
// what we do, would tell it.
func refuseLogin(where, sources string) error {
	found := loginInURL.FindStringSubmatch(sources)
	if found == nil {
		return nil
	}
	return fmt.Errorf("%s has a URL with a user or a password in it, which errors and logs would tell: take it out, and put \"machine %s://%s login USER password PASSWORD\" into a file /etc/apt/auth.conf.d/NAME.conf", where, found[1], found[2])
}

// ofSuite tells the suites of a Debian release: itself, its updates, its security fixes.
func ofSuite(s, suite string) bool {
	return s == suite || s == suite+"-updates" || s == suite+"-security"
}

// oneLineSources keeps the binary sources of a suite: "deb [OPTIONS] URI SUITE COMPONENT…".
func oneLineSources(data, suite string) string {
	var b strings.Builder
	for line := range strings.Lines(data) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			_, rest, _ = strings.Cut(rest, "]")
		}
		if f := strings.Fields(rest); len(f) >= 2 && ofSuite(f[1], suite) {
			b.WriteString(strings.TrimSpace(line) + "\n")
		}
	}
	return b.String()
}

// deb822Sources keeps the binary sources of a suite, in the format of
// sources.list(5) that has one field per line.
func deb822Sources(data, suite string) string {
	var b strings.Builder
	for stanza := range strings.SplitSeq(strings.ReplaceAll(data, "\r\n", "\n"), "\n\n") {
		keep, binary, enabled := false, true, true
		lines := strings.Split(strings.TrimSpace(stanza), "\n")
		for i, line := range lines {
			key, value, ok := strings.Cut(line, ":")
			if !ok || strings.HasPrefix(line, "#") {
				continue
			}
			switch strings.ToLower(strings.TrimSpace(key)) {
			case "suites":
				var suites []string
				for _, s := range strings.Fields(value) {
					if ofSuite(s, suite) {
						suites = append(suites, s)
					}
				}
				keep = len(suites) > 0
				lines[i] = "Suites: " + strings.Join(suites, " ")
			case "types":
				binary = slices.Contains(strings.Fields(value), "deb")
				lines[i] = "Types: deb"
			case "enabled":
				enabled = strings.TrimSpace(value) != "no"
			}
		}
		if keep && binary && enabled {
			b.WriteString(strings.Join(lines, "\n") + "\n\n")
		}
	}
	return b.String()
}
