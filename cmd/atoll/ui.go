package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"atoll/images"
	"atoll/images/disk"
)

// Where text goes. Results go to stdout and nothing else does. Progress,
// errors ("atoll: error: …", then "hint: …") and logs go to stderr. Errors start
// in lower case and end without a period. Bars are for terminals; elsewhere
// progress is a line now and then, so that a log stays readable.

// env is what a command needs of the world.
type env struct {
	stdout  io.Writer // shows no control characters: see plainWriter
	stderr  *screen
	level   *slog.LevelVar
	log     *slog.Logger
	command string // that is running, as it is typed in a shell

	keychain authn.Keychain // of all that a command does, so that each helper is asked once
}

func newEnv(stdout, stderr *os.File) *env {
	level := new(slog.LevelVar)
	level.Set(slog.LevelWarn)
	screen := newScreen(stderr)
	log := slog.New(slog.NewTextHandler(screen, &slog.HandlerOptions{Level: level}))
	return &env{
		stdout: plainWriter{stdout}, stderr: screen, level: level, log: log,
		command:  "atoll " + shellWords(os.Args[1:]),
		keychain: images.NewKeychain(log),
	}
}

// tell reports how the command ended. It is the only place that does.
func (e *env) tell(err error) {
	e.stderr.clear() // a step that broke off may have left its bar
	if err == nil {
		return
	}
	if exitCode(err) == 130 {
		next := "the same command goes on from here"
		var half *disk.UnfinishedError
		if errors.As(err, &half) {
			next = flashAgain(half)
		}
		fmt.Fprintln(e.stderr, plainf("atoll: interrupted; %s", next))
		return
	}
	fmt.Fprint(e.stderr, oneLineEach(err))
	for _, h := range hints(err) {
		fmt.Fprintln(e.stderr, "hint:", plain(h))
	}
}

// say prints one line of progress.
func (e *env) say(format string, args ...any) {
	fmt.Fprintln(e.stderr, plainf(format, args...))
}

// print prints one line of a result.
func (e *env) print(format string, args ...any) error {
	_, err := fmt.Fprintln(e.stdout, plainf(format, args...))
	return err
}

// size writes bytes for people, in powers of 1024.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, exp := float64(n), -1
	for value >= unit && exp < 4 {
		value /= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[exp])
}

// shellWords writes arguments as a shell reads them.
func shellWords(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		plain := func(r rune) bool {
			return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,+@%", r)
		}
		if words[i] = a; a == "" || strings.ContainsFunc(a, func(r rune) bool { return !plain(r) }) {
			words[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
