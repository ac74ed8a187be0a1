package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// Where text goes. Results go to stdout and nothing else does. Progress,
// errors ("atoll: error: …", then "hint: …") and logs go to stderr. Errors start
// in lower case and end without a period. Bars are for terminals; elsewhere
// progress is a line now and then, so that a log stays readable.

// plainEvery is how often progress without a terminal is told.
const plainEvery = 10 * time.Second

// env is what a command needs of the world.
type env struct {
	stdout, stderr io.Writer
	level          *slog.LevelVar
	log            *slog.Logger
	terminal       bool
}

func newEnv(stdout, stderr *os.File) *env {
	level := new(slog.LevelVar)
	level.Set(slog.LevelWarn)
	return &env{
		stdout: stdout, stderr: stderr, level: level,
		log:      slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})),
		terminal: term.IsTerminal(int(stderr.Fd())),
	}
}

// tell reports how the command ended. It is the only place that does.
func (e *env) tell(err error) {
	if err == nil {
		return
	}
	if exitCode(err) == 130 {
		fmt.Fprintln(e.stderr, "atoll: interrupted; the same command goes on from here")
		return
	}
	fmt.Fprint(e.stderr, oneLineEach(err))
	for _, h := range hints(err) {
		fmt.Fprintln(e.stderr, "hint:", h)
	}
}

// say prints one line of progress.
func (e *env) say(format string, args ...any) {
	fmt.Fprintf(e.stderr, format+"\n", args...)
}

// progress shows how far one long step is. Its methods may be called at once
// from several goroutines.
type progress struct {
	e     *env
	name  string // of the step
	part  string // of the step, that is being done; "" if it has none
	start time.Time

	mu   sync.Mutex
	bars *mpb.Progress
	bar  *mpb.Bar
	told time.Time
	last int64 // done, when it was last told
}

func (e *env) progress(name string) *progress {
	now := time.Now()
	return &progress{e: e, name: name, start: now, told: now}
}

// set tells that done bytes of total are behind us.
func (p *progress) set(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.e.terminal {
		if p.bars == nil {
			p.bars = mpb.New(mpb.WithOutput(p.e.stderr))
		}
		if p.bar == nil {
			p.bar = p.bars.AddBar(total,
				mpb.BarRemoveOnComplete(),
				mpb.PrependDecorators(decor.Name(p.label()+" "), decor.CountersKibiByte("% .1f of % .1f")),
				mpb.AppendDecorators(decor.AverageSpeed(decor.SizeB1024(0), "% .1f "), decor.AverageETA(decor.ET_STYLE_GO)))
		}
		p.bar.SetTotal(total, false)
		p.bar.SetCurrent(done)
		return
	}
	if now := time.Now(); now.Sub(p.told) >= plainEvery && done != p.last {
		p.told, p.last = now, done
		p.e.say("%s: %s of %s", p.label(), size(done), size(total))
	}
}

// named is set for steps that have parts; parts follow one another.
func (p *progress) named(part string, done, total int64) {
	p.mu.Lock()
	if p.part != part {
		p.part = part
		if p.bar != nil {
			p.bar.Abort(true)
			p.bar = nil
		}
	}
	p.mu.Unlock()
	p.set(done, total)
}

func (p *progress) label() string {
	if p.part == "" {
		return p.name
	}
	return p.name + ": " + p.part
}

// end closes the step: it clears the bar and, if all went well, says what was done.
func (p *progress) end(err error, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.bar.Abort(true)
		p.bars.Wait()
	}
	if err == nil {
		p.e.say("%s: %s (%s)", p.name, fmt.Sprintf(format, args...), time.Since(p.start).Round(100*time.Millisecond))
	}
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
