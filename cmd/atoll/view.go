package main

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"atoll/images"
)

const (
	// viewRows is how many blobs are shown below the bar of the whole.
	viewRows = 4
	// paceOver is the time over which speed is measured: long enough to be steady, short
	// enough to forget what a run before this one had fetched.
	paceOver = 20 * time.Second
	// paceEvery keeps the samples few.
	paceEvery = 500 * time.Millisecond
)

// view is what there is to see of a step: the model behind bars and lines.
type view struct {
	mu      sync.Mutex
	samples []sample // oldest first
	total   int64
	rows    []images.Blob
}

// sample is how far a step was at a moment.
type sample struct {
	at   time.Time
	done int64
}

// update tells how far the step is at a moment, and what is on its way.
func (v *view) update(now time.Time, done, total int64, moving []images.Blob) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.total = total
	v.rows = rows(v.rows, moving)
	if n := len(v.samples); n > 1 && now.Sub(v.samples[n-2].at) < paceEvery {
		v.samples[n-1] = sample{now, done} // the last is always the newest
	} else {
		v.samples = append(v.samples, sample{now, done})
	}
	for len(v.samples) > 2 && now.Sub(v.samples[1].at) >= paceOver {
		v.samples = v.samples[1:]
	}
}

// reset forgets all.
func (v *view) reset() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.samples, v.total, v.rows = nil, 0, nil
}

// pace is the speed and the time that is left, for people; empty if nothing moves.
func (v *view) pace() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.samples) < 2 {
		return ""
	}
	first, last := v.samples[0], v.samples[len(v.samples)-1]
	took := last.at.Sub(first.at)
	if took < time.Second || last.done <= first.done {
		return ""
	}
	perSecond := float64(last.done-first.done) / took.Seconds()
	left := time.Duration(float64(v.total-last.done) / perSecond * float64(time.Second))
	return fmt.Sprintf("%s/s, %s left", size(int64(perSecond)), left.Round(time.Second))
}

// row is what the row at i shows, if it shows anything.
func (v *view) row(i int) (images.Blob, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if i >= len(v.rows) {
		return images.Blob{}, false
	}
	return v.rows[i], true
}

// rows are the largest of what is on its way. Those that are shown already keep their
// order, so that lines do not jump.
func rows(shown, moving []images.Blob) []images.Blob {
	largest := slices.SortedStableFunc(slices.Values(moving), func(a, b images.Blob) int { return cmp.Compare(b.Total, a.Total) })
	largest = largest[:min(viewRows, len(largest))]
	place := func(b images.Blob) int {
		if i := slices.IndexFunc(shown, func(old images.Blob) bool { return old.Digest == b.Digest }); i >= 0 {
			return i
		}
		return viewRows
	}
	slices.SortStableFunc(largest, func(a, b images.Blob) int { return cmp.Compare(place(a), place(b)) })
	return largest
}

// rowText describes a blob on its way, what is cut off first at the end.
func rowText(b images.Blob) string {
	return plainf("%s of %s, %s from %s", size(b.Done), size(b.Total), b.Name, b.Host)
}
