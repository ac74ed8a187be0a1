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
	"strings"
	"unicode"

	"atoll/bundle"
)

// apt is a private root of Debian's apt: the machine's keys, proxies and programs,
// but no package installed and only the sources of one suite. It needs no
// privileges and changes nothing outside of its folder.
type apt struct {
	dir   string
	suite string
	// trusted are the lines of the sources, from 1, that need no signature.
	trusted map[int]bool
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
// files are not read again (they may hold hooks): only how archives are reached is taken
// over, and where logins are. What comes last counts.
func (a *apt) writeConfig(ctx context.Context, arch string) error {
	dump, err := exec.CommandContext(ctx, "apt-config", "dump", "--no-empty", "--format", "%f %v%n", "Acquire", "Dir::Etc::netrc", "Dir::Etc::netrcparts").Output()
	if err != nil {
		return fmt.Errorf("reading the machine's apt configuration: %w", err)
	}
	var b strings.Builder
	b.WriteString(copySettings(string(dump)))
	for _, kv := range [][2]string{
		{"Dir::Etc::main", "/dev/null"},
		{"Dir::Etc::parts", a.dir + "/empty"},
		{"Dir::Etc::sourcelist", a.dir + "/" + sourcesList},
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
		// apt-secure(8): an archive without a signature that holds is an error.
		{"Acquire::AllowInsecureRepositories", "false"},
		{"Acquire::AllowWeakRepositories", "false"},
		{"Acquire::AllowDowngradeToInsecureRepositories", "false"},
		{"APT::Get::AllowUnauthenticated", "false"},
		{"APT::Authentication::TrustCDROM", "false"},
	} {
		fmt.Fprintf(&b, "%s %q;\n", kv[0], kv[1])
	}
	return errors.Join(a.write("apt.conf", b.String()), a.write("status", ""))
}

// reaching are the settings of apt.conf(5) by which a machine reaches archives: proxies,
// certificates, time-outs. None of them decides what is taken for an archive's.
var reaching = regexp.MustCompile(`(?i)^(dir::etc::netrc(parts)?` +
	`|acquire::(forceipv[46]|queue-mode|enablesrvrecords|by-hash)` +
	`|acquire::https?::(proxy(::[a-z0-9.:_-]+)?|proxy-?auto-?detect|timeout|connectionattemptdelaymsec|dl-limit|max-age|no-cache|no-store` +
	`|pipeline-depth|allowredirect|user-agent(-non-interactive)?|sendaccept)` +
	`|acquire::https?::([a-z0-9._-]+::)?(cainfo|capath|crlfile|issuercert|sslcert|sslkey|sslforceversion|verify-peer|verify-host))$`)

// copySettings takes those out of what apt-config prints, a line "NAME VALUE" for each, as
// apt reads them. A value that cannot be written is left out.
func copySettings(dump string) string {
	var b strings.Builder
	for line := range strings.Lines(dump) {
		name, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		if !reaching.MatchString(name) || value == "" || strings.ContainsFunc(value, func(r rune) bool { return r == '"' || r == '\\' || !unicode.IsPrint(r) }) {
			continue
		}
		fmt.Fprintf(&b, "%s \"%s\";\n", name, value)
	}
	return b.String()
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
