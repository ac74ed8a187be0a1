package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"atoll/images"
)

// plainEvery is how often progress without a terminal is told.
const plainEvery = 10 * time.Second

// progress shows how far one long step is. Its methods may be called at once
// from several goroutines.
type progress struct {
	e     *env
	name  string // of the step
	part  string // of the step, that is being done; "" if it has none
	start time.Time
	view  view

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
func (p *progress) set(done, total int64) { p.show(done, total, nil) }

// show tells as well what is on its way.
func (p *progress) show(done, total int64, moving []images.Blob) {
	now := time.Now()
	p.view.update(now, done, total, moving)
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
				mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return p.view.pace() })),
				mpb.BarBtmExtender(p.view.fillers()...))
		}
		p.bar.SetTotal(total, false)
		p.bar.SetCurrent(done)
		return
	}
	if now.Sub(p.told) >= plainEvery && done != p.last {
		p.told, p.last = now, done
		p.e.say("%s", p.line(done, total))
	}
}

// line is progress without a terminal.
func (p *progress) line(done, total int64) string {
	line := fmt.Sprintf("%s: %s of %s", p.label(), size(done), size(total))
	if pace := p.view.pace(); pace != "" {
		line += ", " + pace
	}
	return line
}

// named is set for steps that have parts; parts follow one another.
func (p *progress) named(part string, done, total int64) {
	p.mu.Lock()
	if p.part != part {
		p.part = part
		p.view.reset()
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

// fillers draw the rows below the bar, each its own; a row that is not used is no line.
func (v *view) fillers() []mpb.BarFiller {
	out := make([]mpb.BarFiller, viewRows)
	for i := range out {
		bar := mpb.BarStyle().Build()
		out[i] = mpb.BarFillerFunc(func(w io.Writer, st decor.Statistics) error {
			b, ok := v.row(i)
			if !ok {
				return nil
			}
			text := rowText(b)
			const barWidth = 22
			if st.AvailableWidth > barWidth+len(text) {
				fmt.Fprint(w, "  ")
				if err := bar.Fill(w, decor.Statistics{AvailableWidth: barWidth, Total: b.Total, Current: b.Done}); err != nil {
					return err
				}
			}
			_, err := fmt.Fprintf(w, "  %.*s\n", max(0, st.AvailableWidth-2), text)
			return err
		})
	}
	return out
}
