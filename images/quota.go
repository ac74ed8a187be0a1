package images

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// askedWait is how long a server that refused asks to wait; 0 if it does not say.
func askedWait(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After")) // in seconds, or as a date
	if v != "" && strings.Trim(v, "0123456789") == "" {
		s, err := strconv.ParseInt(v, 10, 64)
		if err != nil || s > epochs {
			s = epochs // more than fits
		}
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil && t.After(now) {
		return t.Sub(now)
	}
	if q, ok := readQuota(h, now); ok && q.left == 0 {
		return q.reset
	}
	return 0
}

// quota is what a server says it will still answer.
type quota struct {
	limit, left int64
	reset       time.Duration // until it is full again; 0 if unknown
}

// readQuota reads the headers of that kind: RateLimit-Limit, -Remaining and -Reset
// (Docker Hub: "100;w=21600"), the same with X- before them, or one RateLimit line
// ("policy";r=50;t=30).
func readQuota(h http.Header, now time.Time) (quota, bool) {
	for _, prefix := range []string{"RateLimit-", "X-RateLimit-"} {
		left, ok := leadingNumber(h.Get(prefix + "Remaining"))
		if !ok {
			continue
		}
		q := quota{left: left}
		q.limit, _ = leadingNumber(h.Get(prefix + "Limit"))
		if n, ok := leadingNumber(h.Get(prefix + "Reset")); ok {
			q.reset = untilReset(n, now)
		}
		return q, true
	}
	var q quota
	found := false
	for part := range strings.SplitSeq(h.Get("RateLimit"), ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		n, ok := leadingNumber(value)
		switch {
		case ok && name == "r":
			q.left, found = n, true
		case ok && name == "t":
			q.reset = untilReset(n, now)
		}
	}
	return q, found
}

// epochs is 30 years in seconds. No wait is as long; what is more is a Unix time.
const epochs = 1_000_000_000

// untilReset reads seconds, or what some send instead: a Unix time.
func untilReset(n int64, now time.Time) time.Duration {
	if n >= epochs {
		return max(0, time.Unix(n, 0).Sub(now))
	}
	return time.Duration(n) * time.Second
}

// leadingNumber reads the digits that a value starts with.
func leadingNumber(s string) (int64, bool) {
	s = strings.TrimSpace(s)
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(s)
	}
	n, err := strconv.ParseInt(s[:end], 10, 42)
	return n, err == nil
}
