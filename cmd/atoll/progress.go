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
	start time.Time
	view  view

	mu     sync.Mutex
	part   string // of the step, that is being done; "" if it has none
	amount amount // of that part
	bar    *mpb.Bar
	told   time.Time
	last   int64 // done, when it was last told
}

// amount writes for people how much is done of all.
type amount func(done, total int64) string

func inBytes(done, total int64) string  { return size(done) + " of " + size(total) }
func inImages(done, total int64) string { return fmt.Sprintf("%d of %d images", done, total) }

func (e *env) progress(name string) *progress {
	now := time.Now()
	return &progress{e: e, name: name, start: now, amount: inBytes, told: now, last: -1}
}

// set tells that done bytes of total are behind us.
func (p *progress) set(done, total int64) { p.weigh("", done, total, nil) }

// show tells as well what is on its way.
func (p *progress) show(done, total int64, moving []images.Blob) { p.weigh("", done, total, moving) }

// named is set for steps that have parts; parts follow one another.
func (p *progress) named(part string, done, total int64) { p.weigh(part, done, total, nil) }

func (p *progress) weigh(part string, done, total int64, moving []images.Blob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn(part, inBytes)
	p.view.update(time.Now(), done, total, moving)
	p.draw(done, total)
}

// reading tells how many images have been read: a part that comes before the rest is known.
func (p *progress) reading(done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn("reading manifests", inImages)
	p.draw(int64(done), int64(total))
}

// turn begins a part, if it is not the one that is being done.
func (p *progress) turn(part string, in amount) {
	if p.part == part {
		return
	}
	p.part, p.amount, p.last = part, in, -1
	p.view.reset()
	if p.bar != nil {
		p.bar.Abort(true)
		p.bar = nil
	}
}

func (p *progress) draw(done, total int64) {
	if p.e.stderr.terminal {
		if p.bar == nil && done < total {
			in := p.amount
			p.bar = p.e.stderr.bar(total,
				mpb.BarRemoveOnComplete(),
				mpb.PrependDecorators(decor.Name(p.label()+": "), decor.Any(func(s decor.Statistics) string { return in(s.Current, s.Total) })),
				mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return p.view.pace() })),
				mpb.BarBtmExtender(p.view.fillers()...))
		}
		if p.bar != nil {
			p.bar.SetTotal(total, false)
			p.bar.SetCurrent(done)
		}
		return
	}
	if now := time.Now(); now.Sub(p.told) >= plainEvery && done != p.last {
		p.told, p.last = now, done
		p.e.say("%s", p.line(done, total))
	}
}

// line is progress without a terminal.
func (p *progress) line(done, total int64) string {
	line := p.label() + ": " + p.amount(done, total)
	if pace := p.view.pace(); pace != "" {
		line += ", " + pace
	}
	return line
}

func (p *progress) label() string {
	if p.part == "" {
		return p.name
	}
	return p.name + ": " + plain(p.part)
}

// end closes the step: it clears the bar and, if all went well, says what was done.
func (p *progress) end(err error, format string, args ...any) {
	p.e.stderr.clear()
	if err == nil {
		p.e.say("%s: %s (%s)", p.name, plainf(format, args...), time.Since(p.start).Round(100*time.Millisecond))
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
