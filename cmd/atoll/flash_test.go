package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"atoll/images/disk"
)

// newKeyboard returns both ends of a terminal: what is typed, and what reads it.
func newKeyboard(t *testing.T) (keyboard, stdin *os.File) {
	t.Helper()
	keyboard, name, err := openTerminal(24, 80)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	if stdin, err = os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })
	return keyboard, stdin
}

func TestFlashAsks(t *testing.T) {
	target := &disk.Target{Path: "/dev/sdx", Model: "Ultra Fit", Serial: "4C53", Size: 8 << 30}
	for _, tc := range []struct {
		name, answer, want string
	}{
		{"name", "sdx\n", ""},
		{"path is not the name", "/dev/sdx\n", "nothing was written to /dev/sdx"},
		{"yes is no name", "y\n", "nothing was written"},
		{"nothing", "\n", "nothing was written"},
		{"end", "\x04", "nothing was written"}, // Ctrl-D
	} {
		t.Run(tc.name, func(t *testing.T) {
			keyboard, stdin := newKeyboard(t)
			if _, err := io.WriteString(keyboard, tc.answer); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			err := confirm(t.Context(), &env{stderr: &screen{out: &out}}, stdin, target)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if want := "all that is on /dev/sdx (8.0 GiB, Ultra Fit, serial 4C53).\nType sdx to go on: "; !strings.HasSuffix(out.String(), want) {
				t.Errorf("asked %q", out.String())
			}
		})
	}
}

func TestFlashAsksNobody(t *testing.T) {
	e := &env{stderr: &screen{out: io.Discard}, log: slog.New(slog.DiscardHandler)}
	err := confirm(t.Context(), e, strings.NewReader("sdx\n"), &disk.Target{Path: "/dev/sdx"})
	if exitCode(err) != 2 || len(hints(err)) != 1 || !strings.HasPrefix(hints(err)[0], "--yes") {
		t.Errorf("got %v, hints %v", err, hints(err))
	}
}

func TestFlashIsInterruptedWhileItAsks(t *testing.T) {
	_, stdin := newKeyboard(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := confirm(ctx, &env{stderr: &screen{out: io.Discard}}, stdin, &disk.Target{Path: "/dev/sdx"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFlashIsInterrupted(t *testing.T) {
	var out bytes.Buffer
	e := &env{stderr: &screen{out: &out}}
	e.tell(hintFlash(&disk.UnfinishedError{Device: "/dev/sdx", Err: context.Canceled}))
	if want := "atoll: interrupted; /dev/sdx was written only in part and does not start: flash it again\n"; out.String() != want {
		t.Errorf("told %q, want %q", out.String(), want)
	}
}
