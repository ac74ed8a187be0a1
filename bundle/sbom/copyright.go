package sbom

import (
	"errors"
	"fmt"
	"strings"

	"atoll/bundle/bounds"
)

// paragraph is a run of fields of Debian's control format (deb822(5)), by their names in
// lower case. The lines of a value are joined by line breaks, without the space that
// marks those after the first. Of a field that is there twice it is the first.
type paragraph map[string]string

// paragraphs reads a file in that format. Lines that begin with "#" are comments.
func paragraphs(text string) ([]paragraph, error) {
	var all []paragraph
	p := paragraph{}
	var name string
	var value strings.Builder
	flush := func() {
		if name != "" {
			p[name] = value.String()
		}
		name = ""
		value.Reset()
	}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, " \t\r\n")
		switch {
		case line == "":
			flush()
			if len(p) > 0 {
				all, p = append(all, p), paragraph{}
			}
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if name == "" {
				return nil, fmt.Errorf("line %d continues no field", n)
			}
			value.WriteString("\n" + line[1:])
		default:
			flush()
			key, rest, ok := strings.Cut(line, ":")
			name = strings.ToLower(key)
			if !ok || key == "" || strings.ContainsAny(key, " \t") {
				return nil, fmt.Errorf("line %d is no field", n)
			}
			if _, twice := p[name]; twice {
				// A second Comment does no harm; of two licences one would be lost.
				if name == "license" || name == "files" {
					return nil, fmt.Errorf("line %d is a second field %s", n, key)
				}
				name += " "
			}
			value.WriteString(strings.TrimSpace(rest))
		}
	}
	flush()
	if len(p) > 0 {
		all = append(all, p)
	}
	return all, nil
}

// licence is a License field of a copyright file.
type licence struct {
	Terms string // like "GPL-2+ or Artistic"; empty if it has no name but a text
	Text  string // if it is given there
}

// copyright is a copyright file in Debian's machine-readable format.
type copyright struct {
	// Declared are the licences of the files, or if none are said, of the whole.
	Declared []licence
	// Texts are those of licences that are given apart, by their names in lower case.
	Texts map[string]string
}

var (
	errProse      = errors.New("its copyright file is not in the machine-readable format")
	errUnlicensed = errors.New("its copyright file has files of no licence")
)

// parseCopyright reads a copyright file. The format is
// https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/, or a draft of it,
// which has another name but the same fields.
func parseCopyright(text string) (*copyright, error) {
	// Prose is not worth a search for the line that is no field.
	head, _, _ := strings.Cut(strings.TrimLeft(text, "\n"), "\n")
	if !strings.Contains(strings.ToLower(head), "format") && !strings.Contains(text, "\nFormat:") {
		return nil, errProse
	}
	all, err := paragraphs(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProse, err)
	}
	if len(all) == 0 || !machineReadable(all[0]["format"]) {
		return nil, errProse
	}
	if len(all) > bounds.CopyrightStanzas {
		return nil, fmt.Errorf("its copyright file has more than %d stanzas", bounds.CopyrightStanzas)
	}
	c := &copyright{Texts: map[string]string{}}
	for _, p := range all[1:] {
		l, named := licenceOf(p)
		_, files := p["files"]
		switch {
		case files && !named:
			return nil, errUnlicensed
		case files:
			c.Declared = append(c.Declared, l)
		case l.Terms != "" && l.Text != "":
			c.Texts[strings.ToLower(l.Terms)] = l.Text
		}
	}
	if l, named := licenceOf(all[0]); named && len(c.Declared) == 0 {
		c.Declared = append(c.Declared, l)
	}
	if len(c.Declared) == 0 {
		return nil, errUnlicensed
	}
	return c, nil
}

func machineReadable(format string) bool {
	format = strings.ToLower(format)
	return strings.Contains(format, "copyright-format/1.") || strings.Contains(format, "dep5")
}

// licenceOf reads the License field: its first line names it, the others are its text, in
// which "." stands for an empty line.
func licenceOf(p paragraph) (licence, bool) {
	terms, text, _ := strings.Cut(p["license"], "\n")
	l := licence{Terms: strings.Join(strings.Fields(terms), " ")}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.TrimSpace(line) == "." {
			lines[i] = ""
		}
	}
	l.Text = strings.Trim(strings.Join(lines, "\n"), "\n")
	return l, l.Terms != "" || l.Text != ""
}
