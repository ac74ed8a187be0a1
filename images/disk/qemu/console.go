package qemu

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// Bounds of what is kept of a console, however much a guest writes.
const (
	tailLines = 40
	lineBytes = 500
)

// consoleTrouble are texts after which a guest will not get ready by itself, and what
// they mean.
var consoleTrouble = map[string]string{
	"Kernel panic - not syncing":             "kernel panic",
	"Entering emergency mode":                "boot failed: the initramfs stopped in its emergency shell",
	"Warning: Boot has failed.":              "boot failed in the initramfs",
	"You are in emergency mode":              "boot failed: the system stopped in emergency mode",
	"Reached target emergency.target":        "boot failed: the system stopped in emergency mode",
	"Ignition failed: ":                      "first boot failed: Ignition failed",
	"UEFI Interactive Shell":                 "firmware found nothing to boot on the disk",
	"No bootable option or device was found": "firmware found nothing to boot on the disk",
}

// console copies what is written to it, keeps the last lines as text, and looks for
// trouble in them. It never fails, so that the guest goes on if a log cannot be written.
type console struct {
	out     io.Writer
	trouble map[string]string
	found   chan string // gets the meaning of the first trouble, once

	mu    sync.Mutex
	line  []byte
	lines []string
	done  bool // trouble was found
}

func newConsole(out io.Writer, trouble map[string]string) *console {
	return &console{out: out, trouble: trouble, found: make(chan string, 1)}
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out != nil {
		if _, err := c.out.Write(p); err != nil {
			c.out = nil
		}
	}
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		c.line = append(c.line, line[:min(len(line), lineBytes-len(c.line))]...)
		c.look()
		if ended {
			c.keep()
		}
		rest = after
	}
	return len(p), nil
}

// look looks for trouble in the line so far: a prompt does not end its line.
func (c *console) look() {
	if c.done {
		return
	}
	line := clean(string(c.line)) // systemd colours its messages
	for text, meaning := range c.trouble {
		if strings.Contains(line, text) {
			c.done = true
			c.found <- meaning
			return
		}
	}
}

func (c *console) keep() {
	if line := strings.TrimRightFunc(clean(string(c.line)), unicode.IsSpace); line != "" {
		if len(c.lines) == tailLines {
			c.lines = c.lines[1:]
		}
		c.lines = append(c.lines, line)
	}
	c.line = c.line[:0]
}

// tail is the console's last lines, the unfinished one among them.
func (c *console) tail() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := slices.Clone(c.lines)
	if line := strings.TrimSpace(clean(string(c.line))); line != "" {
		lines = append(lines, line)
	}
	return lines
}

// clean makes a guest's text safe for a terminal: escape sequences and control
// characters go.
func clean(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] == 0x1b {
			i += escape(s[i:])
			continue
		}
		r := rune(s[i])
		size := 1
		if r >= 0x80 {
			r, size = decode(s[i:])
		}
		switch {
		case r == '\t':
			b.WriteByte(' ')
		case unicode.IsPrint(r):
			b.WriteRune(r)
		}
		i += size
	}
	return b.String()
}
