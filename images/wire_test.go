package images

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// drip brings so many bytes at a time, each after a wait that ends with its context.
type drip struct {
	ctx  context.Context
	left int
	next func(i int) (n int, wait time.Duration)
	i    int
}

func (d *drip) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	n, wait := d.next(d.i)
	d.i++
	if err := sleep(d.ctx, wait); err != nil {
		return 0, err
	}
	n = min(n, len(p), d.left)
	d.left -= n
	return n, nil
}

func (d *drip) Close() error { return nil }

// wire is a body of size bytes that come as next says.
func wire(ctx context.Context, size int, p *pace, next func(i int) (int, time.Duration)) *wireBody {
	ctx, cancel := context.WithCancelCause(ctx)
	return &wireBody{ReadCloser: &drip{ctx: ctx, left: size, next: next}, ctx: ctx, cancel: cancel, idle: defaultIdle, pace: p}
}

// always brings n bytes after the same wait each time.
func always(n int, wait time.Duration) func(int) (int, time.Duration) {
	return func(int) (int, time.Duration) { return n, wait }
}

// TestTrickle: a connection that brings hardly anything is cut in time; one that is slow
// is not. The clock is not the machine's.
func TestTrickle(t *testing.T) {
	for _, tc := range []struct {
		name string
		size int
		next func(i int) (int, time.Duration)
		cut  time.Duration // when; 0 for never
	}{
		{"silence", 100, always(1, time.Hour), time.Minute},
		{"a byte every few seconds", 1 << 20, always(1, 3*time.Second), time.Minute},
		{"small, and it comes in time", 15, always(1, 3*time.Second), 0},
		{"an eighth of 56 kbit/s", 1 << 20, always(875, time.Second), 0},
		{"that, in bursts", 1 << 20, always(40_000, 45*time.Second), 0},
		{"just enough", 1 << 20, always(leastBytes, 59*time.Second), 0},
		{"not enough", 1 << 20, always(leastBytes-1, 59*time.Second), time.Minute},
		{"fast, then hardly anything", 1 << 20, func(i int) (int, time.Duration) {
			if i < 10 {
				return 50_000, time.Second
			}
			return 1, 3 * time.Second
		}, 70 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := wire(t.Context(), tc.size, nil, tc.next)
				defer b.Close()
				start := time.Now()
				_, err := io.Copy(io.Discard, b)
				var stall stallError
				if errors.As(err, &stall) != (tc.cut > 0) || tc.cut == 0 && err != nil {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); tc.cut > 0 && took != tc.cut {
					t.Errorf("cut after %v, want %v", took, tc.cut)
				}
			})
		})
	}
}

// TestOwnSlowness: what we do to ourselves, by a rate or by a disk, is no stall.
func TestOwnSlowness(t *testing.T) {
	t.Run("a rate for all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &pace{rate: 200} // 25 bytes a second for each
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					b := wire(t.Context(), 100_000, p, always(maxPiece, time.Millisecond))
					defer b.Close()
					if _, err := io.Copy(io.Discard, b); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		})
	})
	t.Run("a disk", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := wire(t.Context(), 1000, nil, always(1, time.Millisecond))
			defer b.Close()
			for buf := make([]byte, 1); ; time.Sleep(time.Hour) {
				if _, err := b.Read(buf); err == io.EOF {
					return
				} else if err != nil {
					t.Fatal(err)
				}
			}
		})
	})
	t.Run("the user breaks off", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			b := wire(ctx, 1000, &pace{rate: 1}, always(100, 0))
			defer b.Close()
			if _, err := io.Copy(io.Discard, b); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	})
}
