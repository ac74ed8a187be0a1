package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// control is what bars send to a terminal besides text: go some lines up and clear what is
// below.
var control = regexp.MustCompile(`^\x1b\[([0-9]+)A\x1b\[J`)

// shown is what a terminal shows at last of what was sent to it, line by line. Control
// characters that are not known stay in the text.
func shown(sent string) []string {
	lines := []string{""}
	for len(sent) > 0 {
		at := len(lines) - 1
		if m := control.FindStringSubmatch(sent); m != nil {
			up, _ := strconv.Atoi(m[1])
			lines = append(lines[:max(0, at-up)], "")
			sent = sent[len(m[0]):]
			continue
		}
		switch sent[0] {
		case '\n':
			lines = append(lines, "")
		case '\r':
		default:
			lines[at] += sent[:1]
		}
		sent = sent[1:]
	}
	return lines[:len(lines)-1]
}

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// waitFor waits until a terminal was sent a text.
func (b *lockedBuffer) waitFor(text string) {
	for !strings.Contains(b.String(), text) {
		time.Sleep(10 * time.Millisecond)
	}
}

// Lines that are written while bars come and go are there in the end, each whole and once,
// in the order of who wrote them; of the bars nothing is.
func TestLinesAboveBars(t *testing.T) {
	var out lockedBuffer
	e := &env{stderr: &screen{out: &out, terminal: true}}
	const writers, lines = 4, 300
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range lines {
				e.say("%d: line %d", w, i)
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			p := e.progress("step")
			p.reading(0, 5)
			p.reading(5, 5) // its bar ends by itself
			p.set(1, 100)
			p.named("part", 2, 100)
			p.end(errors.New("broke"), "")
		}
	})
	wg.Wait()
	var next [writers]int
	all := shown(out.String())
	for _, line := range all {
		var w, i int
		if _, err := fmt.Sscanf(line, "%d: line %d", &w, &i); err != nil || line != fmt.Sprintf("%d: line %d", w, i) || i != next[w] {
			t.Fatalf("shows %q", line)
		}
		next[w]++
	}
	if len(all) != writers*lines {
		t.Errorf("%d lines are shown, want %d", len(all), writers*lines)
	}
}

func TestBarsOnTerminal(t *testing.T) {
	var out lockedBuffer
	e := &env{stderr: &screen{out: &out, terminal: true}}
	p := e.progress("mirror")
	p.reading(105, 105) // all was there
	if p.bar != nil || out.String() != "" {
		t.Errorf("what is over has a bar: %q", out.String())
	}
	p.reading(3, 105)
	out.waitFor("mirror: reading manifests: 3 of 105 images [")
	e.say("before")
	p.reading(90, 105)
	out.waitFor("mirror: reading manifests: 90 of 105 images [")
	p.show(512, 2048, nil)
	out.waitFor("mirror: 512 B of 2.0 KiB [")
	e.say("after")
	p.end(nil, "all is there")
	if got := shown(out.String()); len(got) != 3 || got[0] != "before" || got[1] != "after" || !strings.HasPrefix(got[2], "mirror: all is there (") {
		t.Errorf("shows %q", got)
	}
}

// An error is told below what was said before, though the step's bar was left.
func TestErrorAfterBar(t *testing.T) {
	var out lockedBuffer
	e := &env{stderr: &screen{out: &out, terminal: true}}
	p := e.progress("bake")
	p.set(1, 2)
	out.waitFor("bake: 1 B of 2 B")
	e.say("last words")
	e.tell(errors.New("broke"))
	if got, want := shown(out.String()), []string{"last words", "atoll: error: broke"}; !slices.Equal(got, want) {
		t.Errorf("shows %q, want %q", got, want)
	}
}

// brokenTerminal takes nothing while it is broken.
type brokenTerminal struct {
	lockedBuffer
	tried  chan struct{}
	broken bool
}

func (b *brokenTerminal) Write(p []byte) (int, error) {
	b.mu.Lock()
	broken := b.broken
	b.mu.Unlock()
	if broken {
		select {
		case b.tried <- struct{}{}:
		default:
		}
		return 0, io.ErrShortWrite
	}
	return b.lockedBuffer.Write(p)
}

// Bars that cannot be drawn keep nothing back.
func TestBarsThatCannotBeDrawn(t *testing.T) {
	out := &brokenTerminal{tried: make(chan struct{}), broken: true}
	e := &env{stderr: &screen{out: out, terminal: true}}
	p := e.progress("mirror")
	p.set(1, 100)
	<-out.tried
	out.mu.Lock()
	out.broken = false
	out.mu.Unlock()
	e.say("one")
	p.set(2, 100)
	p.named("part", 3, 100)
	e.say("two")
	p.end(nil, "done")
	// What was drawn when it broke may be there too, above.
	got := shown(out.String())
	if n := len(got); n < 3 || got[n-3] != "one" || got[n-2] != "two" || !strings.HasPrefix(got[n-1], "mirror: done (") {
		t.Errorf("shows %q", got)
	}
}
