package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf16"
	"unicode/utf8"
)

// Names, keys and messages come from files and from servers. A terminal takes some
// characters in them for commands: to write elsewhere, to change its title, to answer as if
// the user had typed. So all text goes through a plainWriter; bars, whose cursor moves, are
// drawn past it, out of words that went through [plain].

// plainWriter writes characters that cannot be seen as \u001b and the like, but for ends of
// lines and tabs: what controls a terminal, what turns the direction of text. In JSON, where
// they can only be in strings, that means the same character.
type plainWriter struct{ w io.Writer }

func (p plainWriter) Write(text []byte) (int, error) {
	clean := escape(string(text), "\n\t")
	if n, err := io.WriteString(p.w, clean); err != nil {
		return min(n, len(text)), err
	}
	return len(text), nil
}

// plain is a word or a line that comes from elsewhere, as it may stand in a line of ours.
func plain(s string) string { return escape(s, "") }

// escape writes what cannot be seen by its code, but for the characters in keep.
func escape(s, keep string) string {
	seen := func(r rune) bool { return strconv.IsGraphic(r) || strings.ContainsRune(keep, r) }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !seen(r) }) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case seen(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return b.String()
}

// plainf formats a line of ours, with what comes from elsewhere as plain text.
func plainf(format string, args ...any) string {
	for i, a := range args {
		switch a := a.(type) {
		case string:
			args[i] = plain(a)
		case error:
			args[i] = plain(a.Error())
		case fmt.Stringer:
			args[i] = plain(a.String())
		}
	}
	return fmt.Sprintf(format, args...)
}

// table writes rows of plain text in columns.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

func (t table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = plain(c)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t table) Flush() error { return t.w.Flush() }
