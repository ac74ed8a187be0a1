package main

import (
	"io"
	"os"
	"sync"

	"github.com/vbauerster/cupwriter"
	"github.com/vbauerster/mpb/v8"
	"golang.org/x/term"
)

// screen is stderr. While there are bars at its end, what is written goes above them, and
// must be whole lines. Like plainWriter it shows no control characters but those of the bars. Its methods may be called at once from several goroutines.
type screen struct {
	out      io.Writer
	terminal bool

	mu   sync.Mutex
	bars *mpb.Progress     // nil while there are none
	held *cupwriter.Writer // what bars have not drawn yet
}

func newScreen(f *os.File) *screen {
	return &screen{out: f, terminal: term.IsTerminal(int(f.Fd()))}
}

func (s *screen) Write(lines []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bars != nil {
		if n, err := (plainWriter{s.bars}).Write(lines); err == nil {
			return n, nil
		}
		s.end() // they could not be drawn, and are no more
	}
	return plainWriter{s.out}.Write(lines)
}

// bar adds one, or gives nil if none can be drawn.
func (s *screen) bar(total int64, options ...mpb.BarOption) *mpb.Bar {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bars == nil {
		s.held = cupwriter.New(s.out, true)
		s.bars = mpb.New(mpb.WithConsoleWriter(s.held), mpb.WithAutoRefresh())
	}
	bar, err := s.bars.Add(total, mpb.BarStyle().Build(), options...)
	if err != nil {
		return nil
	}
	return bar
}

// clear takes all bars away. What is written from then on goes straight out.
func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bars != nil {
		s.end()
	}
}

// end is clear under the lock.
func (s *screen) end() {
	s.bars.Shutdown()
	// mpb leaves what it would have begun the next drawing with: it takes the last one
	// away, then come the lines that were written since.
	s.held.Flush(0)
	s.bars, s.held = nil, nil
}
