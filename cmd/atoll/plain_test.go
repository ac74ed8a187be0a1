package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"atoll/images"
)

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"":                     "",
		"größe 中文 ½ 𝕏":         "größe 中文 ½ 𝕏",
		"\x1b]0;title\a":       `\u001b]0;title\u0007`,
		"a\r\nb\tc":            `a\u000d\u000ab\u0009c`,
		"\u009b31m\x7f":        `\u009b31m\u007f`,
		"\x9b31m":              `\x9b31m`,
		"user\u202egpj\u2066":  `user\u202egpj\u2066`,
		"\u200b\u2028\ufeff":   `\u200b\u2028\ufeff`,
		"tag \U000e0041 plane": `tag \udb40\udc41 plane`,
		"\ufffd":               "\ufffd",
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestPlainWriter(t *testing.T) {
	var out bytes.Buffer
	text := "one\x1b[1m\n\ttwo\r\n"
	if n, err := (plainWriter{&out}).Write([]byte(text)); n != len(text) || err != nil {
		t.Errorf("Write = %d, %v", n, err)
	}
	if got, want := out.String(), "one\\u001b[1m\n\ttwo\\u000d\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestPlainJSON: what is written as JSON means the same, and no terminal obeys it.
func TestPlainJSON(t *testing.T) {
	var all strings.Builder
	for r := rune(0); r <= unicode.MaxRune; r += 1 + r/0x3000*7 {
		if utf8.ValidRune(r) {
			all.WriteRune(r)
		}
	}
	var out bytes.Buffer
	if err := json.NewEncoder(plainWriter{&out}).Encode(map[string]string{all.String(): all.String()}); err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexFunc(strings.TrimSuffix(out.String(), "\n"), func(r rune) bool { return !unicode.IsGraphic(r) }); i >= 0 {
		t.Errorf("%q is written", out.String()[i:i+6])
	}
	var got map[string]string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got[all.String()] != all.String() {
		t.Error("it is read as another string")
	}
}

// TestPlainProgress: words of others come into bars, lines, tables and hints.
func TestPlainProgress(t *testing.T) {
	const evil = "evil\x1b[2J\nforged"
	var out bytes.Buffer
	e := &env{stderr: &screen{out: &out}, stdout: plainWriter{&out}}
	e.say("%s and %v", evil, errors.New(evil))
	e.tell(withHint(errors.New("no"), "%s", evil))
	if err := e.print("%s", evil); err != nil {
		t.Error(err)
	}
	p := e.progress("step")
	p.part = evil
	e.say("%s", p.line(1, 2))
	table := newTable(e.stdout)
	table.row(evil+"\f\v", evil)
	if err := table.Flush(); err != nil {
		t.Error(err)
	}
	out.WriteString(rowText(images.Blob{Name: evil, Host: evil}))
	if text := out.String(); strings.Contains(text, "\x1b") || strings.Contains(text, "\nforged") {
		t.Errorf("got %q", text)
	}
	if got := strings.Count(out.String(), `evil\u001b[2J\u000aforged`); got != 9 {
		t.Errorf("it is shown %d times:\n%s", got, out.String())
	}
}
