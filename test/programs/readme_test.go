package main

import (
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// TestReadme holds README's table of what runs in the place of upstream's images to the
// table: each image is named, by the last part of its name, in a row of its kind, with
// its tag, if it has one, and with Envoy's version, if it has Envoy.
func TestReadme(t *testing.T) {
	inRoot(t)
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| upstream wants | runs here | which is |\n")
	if !found {
		t.Fatal("README.md has no table of programs")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(table, "\n")[1:]
	cells := func(row string) []string { return strings.Split(strings.Trim(row, " |"), " | ") }
	named := make([]bool, len(rows))
	for _, i := range images() {
		runs := ""
		if i.envoy != "" {
			runs = "Envoy " + envoyVersion
		}
		for _, want := range i.wants {
			last, tag, _ := strings.Cut(path.Base(want), ":")
			have := false
			for n, row := range rows {
				c := cells(row)
				if len(c) == 3 && word(c[0], last) && strings.Contains(c[0], tag) && strings.Contains(c[1], runs) && kindIn(c[2]) == i.kind.String() {
					have, named[n] = true, true
				}
			}
			if !have {
				t.Errorf("README.md has no row for %s, %s %s", want, i.kind, runs)
			}
		}
	}
	for n, row := range rows {
		if !named[n] {
			t.Errorf("no image of the table is in README's row %s", row)
		}
	}
}

// word says whether a text has a name, whole.
func word(text, name string) bool {
	return regexp.MustCompile(`(^|[ ,/])` + regexp.QuoteMeta(name) + `($|[ ,:])`).MatchString(text)
}

// kindIn is the kind that a cell begins with; a note may follow.
func kindIn(cell string) string {
	kind, _, _ := strings.Cut(cell, ";")
	return kind
}
