package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// openTerminal makes a terminal: what programs write to the file of that name is read here.
func openTerminal(rows, columns uint16) (f *os.File, name string, err error) {
	f, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, "", err
	}
	n, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}
	return f, fmt.Sprintf("/dev/pts/%d", n), err
}

// cmdTerminal is the script command "terminal TEXT COMMAND [ARG…]": the command's stderr is
// a terminal. Once that was sent TEXT, the registry holds nothing any more. What it shows
// in the end is the script's file "screen".
func cmdTerminal(ts *testscript.TestScript, _ bool, args []string) {
	f, name, err := openTerminal(50, 300) // columns: no line is wrapped
	ts.Check(err)
	defer f.Close()
	own, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0) // without one, reading ends at once
	ts.Check(err)
	var sent strings.Builder
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for waits := true; ; {
			n, err := f.Read(buf)
			sent.Write(buf[:n])
			if waits && strings.Contains(sent.String(), args[0]) {
				waits = false
				ts.Value(worldKey{}).(*world).release()
			}
			if err != nil { // EIO: nobody has it open
				return
			}
		}
	}()
	err = ts.Exec("sh", append([]string{"-c", `exec "$@" 2>` + name, "sh"}, args[1:]...)...)
	own.Close()
	<-done
	screen := strings.Join(append(shown(sent.String()), ""), "\n")
	ts.Logf("[screen]\n%s", screen)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("screen"), []byte(screen), 0o644))
}
