package sbom

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"

	"github.com/github/go-spdx/v2/spdxexp/spdxlicenses"

	"atoll/bundle/bounds"
)

// expression is a licence expression of SPDX: the name of one licence, or several joined.
type expression struct {
	name string // of one
	op   string // "AND" or "OR" of several
	of   []expression
}

func (e expression) String() string {
	if e.op == "" {
		return e.name
	}
	parts := make([]string, len(e.of))
	for i, part := range e.of {
		parts[i] = part.String()
		if part.op != "" {
			parts[i] = "(" + parts[i] + ")"
		}
	}
	return strings.Join(parts, " "+e.op+" ")
}

// join makes one expression of several: each once, sorted, and what is of the same kind flat.
func join(op string, of []expression) expression {
	var flat []expression
	seen := map[string]bool{}
	for _, e := range of {
		parts := []expression{e}
		if e.op == op {
			parts = e.of
		}
		for _, part := range parts {
			if s := part.String(); !seen[s] {
				seen[s] = true
				flat = append(flat, part)
			}
		}
	}
	if len(flat) == 1 {
		return flat[0]
	}
	slices.SortFunc(flat, func(a, b expression) int { return strings.Compare(a.String(), b.String()) })
	return expression{op: op, of: flat}
}

// expression is what a copyright file declares: all its licences together. other
// is told the name and text of each that SPDX does not know, and says what to call it.
func (c *copyright) expression(other func(name, text string) string) string {
	var all []expression
	seen := map[licence]bool{}
	for _, l := range c.Declared {
		if seen[l] {
			continue
		}
		seen[l] = true
		all = append(all, parseTerms(l.Terms, func(name string) string {
			text, apart := c.Texts[strings.ToLower(name)]
			if !apart {
				text = l.Text
			}
			return other(name, text)
		}))
	}
	return join("AND", all).String()
}

// parseTerms reads the first line of a License field: names joined by "and", which binds
// closer, and "or"; a comma before one of them makes it bind less close than those without.
// Terms that are none are taken for the name of a licence.
func parseTerms(terms string, other func(string) string) expression {
	words := strings.Fields(strings.NewReplacer(",", " , ", "(", " ( ", ")", " ) ").Replace(terms))
	p := &termParser{words: words, other: other}
	if len(words) <= bounds.LicenceTerms {
		if e := p.level(0); !p.bad && len(p.words) == 0 {
			return e
		}
	}
	return expression{name: other(terms)}
}

type termParser struct {
	words []string
	other func(string) string
	bad   bool
}

// operators from the one that binds least.
var operators = [][]string{{",", "or"}, {",", "and"}, {"or"}, {"and"}}

// level reads operands of the operator of a level, and of those that bind closer.
func (p *termParser) level(n int) expression {
	if n == len(operators) {
		return p.operand()
	}
	of := []expression{p.level(n + 1)}
	for p.skip(operators[n]) {
		of = append(of, p.level(n+1))
	}
	return join(strings.ToUpper(operators[n][len(operators[n])-1]), of)
}

// skip passes over an operator, if that is what comes.
func (p *termParser) skip(words []string) bool {
	if len(p.words) < len(words) {
		return false
	}
	for i, w := range words {
		if !strings.EqualFold(p.words[i], w) {
			return false
		}
	}
	p.words = p.words[len(words):]
	return true
}

// operand reads a name, which may have spaces, or terms in parentheses.
func (p *termParser) operand() expression {
	if p.skip([]string{"("}) {
		e := p.level(0)
		p.bad = p.bad || !p.skip([]string{")"})
		return e
	}
	n := 0
	for n < len(p.words) && !slices.Contains([]string{"and", "or", ",", "(", ")"}, strings.ToLower(p.words[n])) {
		n++
	}
	name := strings.Join(p.words[:n], " ")
	p.words = p.words[n:]
	p.bad = p.bad || n == 0
	if p.bad {
		return expression{}
	}
	return named(name, p.other)
}

// named turns the name of a licence, or of one with an exception, into that of SPDX.
func named(name string, other func(string) string) expression {
	key := strings.ToLower(name)
	if key == "perl" {
		return expression{op: "OR", of: []expression{{name: "Artistic-1.0-Perl"}, {name: "GPL-1.0-or-later"}}}
	}
	licence, exception, with := strings.Cut(key, " with ")
	id, ok := licenceID(licence)
	if with && ok {
		var e string
		e, ok = exceptionID(id, exception)
		id += " WITH " + e
	}
	if !ok {
		id = other(name)
	}
	return expression{name: id}
}

var (
	// gnu are the names of licences that SPDX gives an ending: -only or -or-later.
	gnu = regexp.MustCompile(`^(a?gpl|lgpl|gfdl|gfdl-niv)-([0-9]+(?:\.[0-9]+)*)(\+?)$`)
	// versioned are names with a version.
	versioned = regexp.MustCompile(`^(.*[a-z].*-)v?([0-9]+(?:\.[0-9]+)*)$`)
)

// debianNames are names of Debian's format, and what is often written, that SPDX calls
// otherwise. Names that do not tell which of several licences is meant (Apache, BSD,
// GPL) are not among them.
var debianNames = map[string]string{
	"expat":    "MIT",
	"artistic": "Artistic-1.0-Perl", // by /usr/share/common-licenses/Artistic
	"cc0":      "CC0-1.0",
	"cpl":      "CPL-1.0",
	"qpl":      "QPL-1.0",
	"zope-1.1": "ZPL-1.1",
	"zope-2.0": "ZPL-2.0",
	"zope-2.1": "ZPL-2.1",
}

// licenceID is SPDX's identifier of a licence that Debian calls by name, in lower case.
// Versions may lack their last ".0".
func licenceID(name string) (string, bool) {
	if id, ok := debianNames[name]; ok {
		return id, true
	}
	if m := gnu.FindStringSubmatch(name); m != nil {
		ending := "-only"
		if m[3] != "" {
			ending = "-or-later"
		}
		family, invariants := strings.CutSuffix(m[1], "-niv")
		if invariants {
			ending = "-no-invariants" + ending
		}
		return firstActive(family+"-", m[2], ending)
	}
	bare, later := strings.CutSuffix(name, "+")
	id, ok := firstActive(bare, "", "")
	if m := versioned.FindStringSubmatch(bare); !ok && m != nil {
		id, ok = firstActive(m[1], m[2], "")
	}
	if later {
		id += "+"
	}
	return id, ok
}

// firstActive is the identifier that is made of the parts and on SPDX's list, whether
// the version is written with its last ".0" or not.
func firstActive(name, version, ending string) (string, bool) {
	for _, v := range []string{version, version + ".0", strings.TrimSuffix(version, ".0")} {
		if ok, id := spdxlicenses.IsActiveLicense(name + v + ending); ok {
			return id, true
		}
		if version == "" {
			break
		}
	}
	return "", false
}

// exceptionID is SPDX's identifier of an exception to the licence id. Most names
// ("OpenSSL exception", "Autoconf exception") do not tell which of several texts is meant,
// and are none.
func exceptionID(id, name string) (string, bool) {
	name = strings.ReplaceAll(strings.TrimSpace(strings.TrimSuffix(name, "exception")), " ", "-")
	name = strings.TrimSuffix(name, "-")
	switch {
	case name == "font":
		name = "font-exception-2.0"
	case (name == "gcc" || name == "gcc-runtime-library") && strings.HasPrefix(id, "GPL-3"):
		name = "gcc-exception-3.1"
	case name == "bison" && strings.HasPrefix(id, "GPL-3"):
		name = "bison-exception-2.2"
	}
	for _, try := range []string{name, name + "-exception"} {
		if ok, id := spdxlicenses.IsException(try); ok {
			return id, true
		}
	}
	return "", false
}

// licenseRef is the identifier, within one document, of a licence that SPDX does not know.
func licenseRef(name, text string) string {
	sum := sha256.Sum256([]byte(name + "\x00" + text))
	return "LicenseRef-" + idString(cmp.Or(name, "unnamed")) + "-" + hex.EncodeToString(sum[:6])
}

// idString writes s with the characters that an SPDX identifier may have, no more than 64.
func idString(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-') {
			return r
		}
		return '-'
	}, s)
	return s[:min(len(s), 64)]
}
