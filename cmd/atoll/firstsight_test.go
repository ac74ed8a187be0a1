package main

import (
	"bytes"
	"strings"
	"testing"

	"atoll/bundle"
)

// TestWarnOfFirstSight: trust is told when it is given, not when a lock holds it.
func TestWarnOfFirstSight(t *testing.T) {
	one, two := bundle.DigestOf([]byte("one")), bundle.DigestOf([]byte("two"))
	stated := bundle.LockedSource{Name: "stated", URL: "https://h.test/stated", Digest: one}
	seen := bundle.LockedSource{Name: "seen", URL: "https://h.test/seen", Digest: one, FirstSight: true}
	changed := seen
	changed.Digest = two
	for _, tc := range []struct {
		locked, before []bundle.LockedSource
		want           int
	}{
		{[]bundle.LockedSource{stated, seen}, nil, 1},
		{[]bundle.LockedSource{stated, seen}, []bundle.LockedSource{stated, seen}, 0},
		{[]bundle.LockedSource{changed}, []bundle.LockedSource{seen}, 1},
	} {
		var out bytes.Buffer
		(&env{stderr: &screen{out: &out}}).warnOfFirstSight(tc.locked, tc.before)
		if n := strings.Count(out.String(), "\n"); n != tc.want || n > 0 && !strings.Contains(out.String(), "source seen is taken at first sight") {
			t.Errorf("got %q, want %d lines", out.String(), tc.want)
		}
	}
}
