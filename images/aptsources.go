package images

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

const (
	// machineSources is where a Debian machine keeps its sources.
	machineSources = "/etc/apt"
	// sourcesList is the file of the definition's sources in the root of apt.
	sourcesList = "sources.list"
)

// writeSources gives the root its sources: the definition's, or the machine's of
// the same suite. What apt reads is what was checked, written anew.
func (a *apt) writeSources(base bundle.Base) error {
	if len(base.Sources) == 0 {
		return a.copySources(machineSources, base.Suite)
	}
	a.trusted = map[int]bool{}
	var b strings.Builder
	for i, line := range base.Sources {
		if err := refuseLogin("base.sources", line); err != nil {
			return err
		}
		s, err := bundle.ParseAptSource(line)
		if err != nil {
			return fmt.Errorf("base.sources: %q: %w", line, err)
		}
		a.trusted[i+1] = s.Trusted
		b.WriteString(s.String() + "\n")
	}
	return a.write(sourcesList, b.String())
}

// copySources takes the sources of a suite from a folder like /etc/apt.
func (a *apt) copySources(dir, suite string) error {
	n := 0
	list, err := filepath.Glob(filepath.Join(dir, "sources.list.d/*"))
	if err != nil {
		return err
	}
	for _, path := range append([]string{filepath.Join(dir, "sources.list")}, list...) {
		data, err := bundle.ReadRegular(path, bounds.AptSources)
		if err != nil {
			continue // absent, or not for us: what matters is whether any is left
		}
		content := ""
		switch filepath.Ext(path) {
		case ".list":
			content, err = oneLineSources(path, string(data), suite)
		case ".sources":
			content, err = deb822Sources(path, string(data), suite)
		}
		if err != nil {
			return err
		}
		if content == "" {
			continue
		}
		n++
		if err := a.write("sources/"+filepath.Base(path), content); err != nil {
			return err
		}
	}
	if n == 0 {
		return fmt.Errorf("this machine has no apt sources of Debian %s: name some under base.sources, like \"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://MIRROR/debian %s main\"", suite, suite)
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
func oneLineSources(path, data, suite string) (string, error) {
	var b strings.Builder
	n := 0
	for line := range strings.Lines(data) {
		n++
		line, _, _ = strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), "#")
		rest, ok := strings.CutPrefix(line, "deb ")
		if !ok {
			continue
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			_, rest, _ = strings.Cut(rest, "]")
		}
		if f := strings.Fields(rest); len(f) < 2 || !ofSuite(f[1], suite) {
			continue
		}
		if err := refuseLogin(path, line); err != nil {
			return "", err
		}
		s, err := bundle.ParseAptSource(line)
		if err == nil && s.Trusted {
			err = fmt.Errorf("trusted=yes is not taken: %w", bundle.ErrUnauthenticated)
		}
		if err != nil {
			return "", fmt.Errorf("%s:%d: %w", path, n, err)
		}
		b.WriteString(s.String() + "\n")
	}
	return b.String(), nil
}

// deb822Fields are the fields of a source that are kept, of sources.list(5). The rest is
// what no apt reads, or what lets it do without a signature.
var deb822Fields = []string{"Types", "URIs", "Suites", "Components", "Architectures", "Languages", "Targets", "PDiffs", "By-Hash", "Signed-By",
	"Check-Valid-Until", "Valid-Until-Min", "Valid-Until-Max", "Check-Date", "Date-Max-Future", "InRelease-Path", "Snapshot"}

// deb822Sources keeps the binary sources of a suite, in the format of
// sources.list(5) that has one field per line.
func deb822Sources(path, data, suite string) (string, error) {
	var b strings.Builder
	for _, s := range parseStanzas(data) {
		var suites []string
		for _, name := range strings.Fields(s.fields["suites"]) {
			if ofSuite(name, suite) {
				suites = append(suites, name)
			}
		}
		no := []string{"no", "false", "without", "off", "disable", "0"} // as apt reads them
		if len(suites) == 0 || !slices.Contains(strings.Fields(s.fields["types"]), "deb") || slices.Contains(no, strings.ToLower(s.fields["enabled"])) {
			continue
		}
		if err := refuseLogin(path, s.fields["uris"]); err != nil {
			return "", err
		}
		if err := s.check(); err != nil {
			return "", fmt.Errorf("%s:%d: %w", path, s.line, err)
		}
		s.fields["types"], s.fields["suites"] = "deb", strings.Join(suites, " ")
		for _, name := range deb822Fields {
			if value := s.fields[strings.ToLower(name)]; value != "" {
				fmt.Fprintf(&b, "%s: %s\n", name, value)
			}
		}
		b.WriteString("\n")
	}
	return b.String(), nil
}

// stanza is a paragraph of a file in deb822(5).
type stanza struct {
	line   int               // that it starts at, from 1
	fields map[string]string // by names in lower case; lines after the first start with a space
}

func parseStanzas(data string) []stanza {
	var out []stanza
	open, last, n := false, "", 0
	for line := range strings.Lines(data) {
		n++
		line = strings.TrimRight(line, " \t\r\n")
		switch {
		case line == "":
			open = false
			continue
		case line[0] == '#':
			continue
		case !open:
			out = append(out, stanza{line: n, fields: map[string]string{}})
			open, last = true, ""
		}
		fields := out[len(out)-1].fields
		if line[0] == ' ' || line[0] == '\t' {
			if last != "" {
				fields[last] += "\n " + strings.TrimLeft(line, " \t")
			}
			continue
		}
		key, value, _ := strings.Cut(line, ":")
		last = strings.ToLower(strings.TrimSpace(key))
		fields[last] = strings.TrimSpace(value)
	}
	return out
}

// check refuses a source for which no key may vouch, and one that apt may read as another.
func (s stanza) check() error {
	for name, value := range s.fields {
		switch {
		case strings.HasPrefix(name, "allow-") && value == "no":
		case strings.HasPrefix(name, "allow-"), name == "trusted":
			return fmt.Errorf("field %s is not taken: %w", name, bundle.ErrUnauthenticated)
		case strings.ContainsFunc(value, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }):
			return fmt.Errorf("field %s is not text", name)
		}
	}
	for _, uri := range strings.Fields(s.fields["uris"]) {
		if err := bundle.CheckAptURI(uri); err != nil {
			return err
		}
	}
	return nil
}
