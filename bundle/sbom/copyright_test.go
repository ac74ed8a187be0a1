package sbom

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/github/go-spdx/v2/spdxexp"

	"atoll/bundle/bounds"
)

// inBrackets stands for a licence that SPDX does not know.
func inBrackets(name, _ string) string { return "<" + name + ">" }

func TestTerms(t *testing.T) {
	for terms, want := range map[string]string{
		// Names of Debian's format.
		"GPL-2+": "GPL-2.0-or-later", "GPL-2": "GPL-2.0-only", "GPL-1+": "GPL-1.0-or-later", "gpl-3.0+": "GPL-3.0-or-later",
		"LGPL-2": "LGPL-2.0-only", "LGPL-2.1+": "LGPL-2.1-or-later", "AGPL-3+": "AGPL-3.0-or-later",
		"GFDL-1.3+": "GFDL-1.3-or-later", "GFDL-NIV-1.3": "GFDL-1.3-no-invariants-only", "GFDL-NIV-1.3+": "GFDL-1.3-no-invariants-or-later",
		"Expat": "MIT", "BSD-2-clause": "BSD-2-Clause", "BSD-3-clause": "BSD-3-Clause", "BSD-4-clause": "BSD-4-Clause",
		"Apache-2": "Apache-2.0", "Apache-2.0": "Apache-2.0", "Artistic": "Artistic-1.0-Perl", "Artistic-2": "Artistic-2.0",
		"Perl": "Artistic-1.0-Perl OR GPL-1.0-or-later", "CC0": "CC0-1.0", "CC0-1.0": "CC0-1.0", "CC-BY-SA-3": "CC-BY-SA-3.0", "ISC": "ISC",
		"Zlib": "Zlib", "zlib": "Zlib", "MPL-1.1": "MPL-1.1", "MPL-2": "MPL-2.0", "MPL-1.1+": "MPL-1.1+", "LPPL-1.3c": "LPPL-1.3c",
		"CPL": "CPL-1.0", "QPL": "QPL-1.0", "W3C": "W3C", "Zope-2.1": "ZPL-2.1", "PSF-2": "PSF-2.0", "CDDL-1.0": "CDDL-1.0",
		// SPDX's own.
		"GPL-2.0-or-later": "GPL-2.0-or-later", "FSFULLR": "FSFULLR", "bsl-1.0": "BSL-1.0",
		// Those that tell no licence, or another's.
		"GPL": "<GPL>", "BSD": "<BSD>", "Apache": "<Apache>", "public-domain": "<public-domain>", "GPL-7": "<GPL-7>", "GPL-2.0.0.0": "<GPL-2.0.0.0>",
		"NONE": "<NONE>", "NOASSERTION": "<NOASSERTION>", "LicenseRef-x": "<LicenseRef-x>", "+": "<+>", "-1": "<-1>", "BSD 3 clause": "<BSD 3 clause>",
		"Perl 5": "<Perl 5>", "GPL-2 with more": "<GPL-2 with more>",
		// Exceptions.
		"GPL-3+ with Bison exception":                   "GPL-3.0-or-later WITH Bison-exception-2.2",
		"GPL-2+ with Bison exception":                   "<GPL-2+ with Bison exception>",
		"GPL-2+ with Libtool exception":                 "GPL-2.0-or-later WITH Libtool-exception",
		"GPL-3+ with GCC Runtime Library exception":     "GPL-3.0-or-later WITH GCC-exception-3.1",
		"GPL-2 with Linux-syscall-note exception":       "GPL-2.0-only WITH Linux-syscall-note",
		"GPL-2+ With Font Exception":                    "GPL-2.0-or-later WITH Font-exception-2.0",
		"Apache-2.0 with LLVM exception":                "Apache-2.0 WITH LLVM-exception",
		"GPL-2+ with OpenSSL exception":                 "<GPL-2+ with OpenSSL exception>",
		"GPL-2+ with Autoconf exception":                "<GPL-2+ with Autoconf exception>",
		"X with Libtool exception":                      "<X with Libtool exception>",
		"GPL-2+ with OpenSSL exception, and Expat":      "<GPL-2+ with OpenSSL exception> AND MIT",
		"GPL-2+ with Libtool exception or BSD-3-clause": "BSD-3-Clause OR GPL-2.0-or-later WITH Libtool-exception",
		// Composition: "and" binds closer than "or", a comma less close than both.
		"GPL-2 or Expat":                                "GPL-2.0-only OR MIT",
		"GPL-2 and Expat":                               "GPL-2.0-only AND MIT",
		"GPL-2 or Expat and Zlib":                       "GPL-2.0-only OR (MIT AND Zlib)",
		"GPL-2 or Expat, and Zlib":                      "(GPL-2.0-only OR MIT) AND Zlib",
		"GPL-2 or Artistic, and Zlib, and BSD-3-clause": "(Artistic-1.0-Perl OR GPL-2.0-only) AND BSD-3-Clause AND Zlib",
		"GPL-2 and Zlib, or Expat":                      "(GPL-2.0-only AND Zlib) OR MIT",
		"(GPL-2 or Expat) and (Zlib)":                   "(GPL-2.0-only OR MIT) AND Zlib",
		"Expat OR MIT":                                  "MIT",
		"Perl and Zlib":                                 "(Artistic-1.0-Perl OR GPL-1.0-or-later) AND Zlib",
		"Perl or GPL-1+":                                "Artistic-1.0-Perl OR GPL-1.0-or-later",
		"GPL-2 and Odd":                                 "<Odd> AND GPL-2.0-only",
		// What is no composition is one name.
		"GPL-2, Expat": "<GPL-2, Expat>", "GPL-2 or": "<GPL-2 or>", "and": "<and>", "(GPL-2": "<(GPL-2>", "GPL-2) or Expat": "<GPL-2) or Expat>", "": "<>",
		"GPL-2 and/or Expat": "<GPL-2 and/or Expat>", "()": "<()>", "GPL-2 (Expat)": "<GPL-2 (Expat)>",
	} {
		if got := parseTerms(terms, func(name string) string { return inBrackets(name, "") }).String(); got != want {
			t.Errorf("%q is %s, want %s", terms, got, want)
		}
	}
}

const dep5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"

func TestParseCopyright(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"one":              {dep5 + "\nFiles: *\nCopyright: me\nLicense: GPL-2+\n", "GPL-2.0-or-later"},
		"several, sorted":  {dep5 + "\nFiles: *\nLicense: Zlib\n\nFiles: x\nLicense: Expat\n text\n\nFiles: y\nLicense: Zlib\n", "MIT AND Zlib"},
		"several or":       {dep5 + "\nFiles: *\nLicense: Zlib or ISC\n\nFiles: x\nLicense: Expat\n", "(ISC OR Zlib) AND MIT"},
		"the whole's":      {dep5 + "License: ISC\n", "ISC"},
		"the files' first": {dep5 + "License: ISC\n\nFiles: *\nLicense: Expat\n", "MIT"},
		"apart is no file": {dep5 + "\nFiles: *\nLicense: Expat\n\nLicense: GPL-2\n text\n", "MIT"},
		"carriage returns": {strings.ReplaceAll(dep5+"\nFiles: *\nLicense: Expat\n", "\n", "\r\n"), "MIT"},
		"blanks, comments": {"\n# c\n" + dep5 + "# c\n \nFiles: *\n# c\nLicense:   Expat  \n", "MIT"},
		"first draft":      {"Format: http://svn.debian.org/wsvn/dep/web/deps/dep5.mdwn?rev=174\n\nFiles: *\nLicense: Expat\n", "MIT"},
		"no name":          {dep5 + "\nFiles: *\nLicense:\n Do what you like.\n", "<>"},
		"two comments":     {dep5 + "Comment: a\nComment: b\n\nFiles: *\nLicense: ISC\n", "ISC"},
		"no files":         {dep5, errUnlicensed.Error()},
		"no licence":       {dep5 + "\nFiles: *\nCopyright: me\n\nFiles: x\nLicense: ISC\n", errUnlicensed.Error()},
		"two licences":     {dep5 + "\nFiles: *\nLicense: ISC\nLicense: Expat\n", "line 5 is a second field License"},
		"prose":            {"This package was debianized by me.\n\nFormat: by hand\n", errProse.Error()},
		"another format":   {"Format: https://example.test/\n\nFiles: *\nLicense: ISC\n", errProse.Error()},
		"prose within":     {dep5 + "\nFiles: *\nLicense: ISC\nand so on\n", "line 5 is no field"},
		"begins indented":  {" x\n" + dep5 + "\nFiles: *\nLicense: ISC\n", "line 1 continues no field"},
		"empty":            {"", errProse.Error()},
		"too many":         {dep5 + strings.Repeat("\nFiles: x\nLicense: ISC\n", bounds.CopyrightStanzas), "more than 4096 stanzas"},
	} {
		c, err := parseCopyright(test.text)
		got := fmt.Sprint(err)
		if err == nil {
			got = c.expression(inBrackets)
		}
		if got != test.want && (err == nil || !strings.Contains(got, test.want)) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// The text of a licence that SPDX does not know is the one that is given apart, else the
// one at the files.
func TestTexts(t *testing.T) {
	c, err := parseCopyright(dep5 + `
Files: *
License: Odd and Other, and Third
 Of the files.

Files: x
License: ODD

License: odd
 First line
 .
   indented
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	c.expression(func(name, text string) string {
		got = append(got, name+"="+text)
		return name
	})
	slices.Sort(got)
	want := []string{"ODD=First line\n\n  indented", "Odd=First line\n\n  indented", "Other=Of the files.", "Third=Of the files."}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What a hostile file says is bounded by its size, in time too.
func TestHostileCopyright(t *testing.T) {
	for name, terms := range map[string]string{
		"parentheses": strings.Repeat("(", bounds.Copyright/2),
		"names":       strings.Repeat("x and ", bounds.Copyright/8),
		"one name":    strings.Repeat("x", bounds.Copyright/2),
		"commas":      strings.Repeat(",", bounds.Copyright/2),
	} {
		c, err := parseCopyright(dep5 + "\nFiles: *\nLicense: " + terms + "\n")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e := c.expression(licenseRef); len(e) > 100 || !strings.HasPrefix(e, "LicenseRef-") {
			t.Errorf("%s: %.200s", name, e)
		}
	}
}

// Of the copyright files of this machine most are machine-readable, and what comes of
// them is an expression by SPDX.
func TestCopyrightsOfThisMachine(t *testing.T) {
	files, _ := filepath.Glob("/usr/share/doc/*/copyright")
	whole, declared := 0, 0
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // a link to nowhere
		}
		whole++
		c, err := parseCopyright(string(data))
		if err != nil {
			continue
		}
		declared++
		e := c.expression(licenseRef)
		if ok, _ := spdxexp.ValidateLicenses([]string{e}); !ok {
			t.Errorf("%s: %s", path, e)
		}
	}
	t.Logf("%d of %d declare their licence", declared, whole)
	if whole > 100 && declared < whole/2 {
		t.Errorf("only %d of %d declare their licence", declared, whole)
	}
}

func FuzzCopyright(f *testing.F) {
	f.Add(dep5 + "\nFiles: *\nLicense: GPL-2+ with OpenSSL exception, and Expat\n text\n\nLicense: Expat\n text\n .\n more\n")
	f.Add(dep5 + "License: (a or b) and c\n")
	f.Add("Format: dep5\n\nFiles: x\nLicense: Perl, or and\n")
	for _, path := range []string{"bash", "dpkg", "libc6", "openssl", "systemd", "perl-base", "zlib1g"} {
		if data, err := os.ReadFile("/usr/share/doc/" + path + "/copyright"); err == nil && len(data) < 1<<16 {
			f.Add(string(data))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCopyright(strings.ToValidUTF8(text, "\uFFFD"))
		if err != nil {
			return
		}
		e := c.expression(licenseRef)
		if ok, _ := spdxexp.ValidateLicenses([]string{e}); !ok {
			t.Errorf("%q is no expression", e)
		}
	})
}
