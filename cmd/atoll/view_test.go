package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/vbauerster/mpb/v8/decor"

	"atoll/images"
)

// blobs makes one of each name with that size in bytes: "a=30".
func blobs(t *testing.T, list string) (out []images.Blob) {
	t.Helper()
	for _, field := range strings.Fields(list) {
		var name string
		var size int64
		if _, err := fmt.Sscanf(strings.Replace(field, "=", " ", 1), "%s %d", &name, &size); err != nil {
			t.Fatal(err)
		}
		out = append(out, images.Blob{Name: name, Digest: v1.Hash{Algorithm: "sha256", Hex: name}, Host: "host", Total: size})
	}
	return out
}

func TestRows(t *testing.T) {
	var shown []images.Blob
	for _, step := range []struct{ moving, want string }{
		{"a=10 b=30", "b a"},
		{"a=10 b=30 c=20", "b a c"},                // what is shown stays where it is
		{"a=10 b=30 c=20 d=5 e=5", "b a c d"},      // of equals the first
		{"a=10 c=20 d=5 e=5", "a c d e"},           // b is done
		{"a=10 c=20 d=5 e=5 f=6 g=100", "a c g f"}, // d and e are the smallest now
		{"e=5", "e"}, //
		{"h=1 e=5 i=2 j=3 k=4 l=5 m=6 n=7", "e n m l"}, // the largest first
		{"", ""},
	} {
		shown = rows(shown, blobs(t, step.moving))
		var got []string
		for _, b := range shown {
			got = append(got, b.Name)
		}
		if strings.Join(got, " ") != step.want {
			t.Errorf("of %q are shown %v, want %s", step.moving, got, step.want)
		}
	}
}

func TestRowsAreNow(t *testing.T) {
	was, is := blobs(t, "a=10"), blobs(t, "a=10")
	is[0].Done, is[0].Host = 7, "other"
	if got := rows(rows(nil, was), is); got[0].Done != 7 || got[0].Host != "other" {
		t.Errorf("row shows %+v", got[0])
	}
}

func TestPace(t *testing.T) {
	begin := time.Unix(1000, 0)
	at := func(s float64) time.Time { return begin.Add(time.Duration(s * float64(time.Second))) }
	var v view
	v.update(at(0), 5<<20, 100<<20, nil) // what was there before does not count as fetched
	if got := v.pace(); got != "" {
		t.Errorf("at once: %q", got)
	}
	v.update(at(0.1), 6<<20, 100<<20, nil)
	if got := v.pace(); got != "" {
		t.Errorf("after a moment: %q", got)
	}
	v.update(at(5), 15<<20, 100<<20, nil)
	if got := v.pace(); got != "2.0 MiB/s, 43s left" {
		t.Errorf("after 5 s: %q", got)
	}
	for i := range 1000 {
		v.update(at(5+float64(i)/10), 15<<20+int64(i)<<10, 100<<20, nil)
	}
	if got := v.pace(); !strings.HasPrefix(got, "10.0 KiB/s, ") {
		t.Errorf("slow since long: %q", got)
	}
	if n := len(v.samples); n > 60 {
		t.Errorf("%d samples are kept", n)
	}
	v.update(at(300), 15<<20, 100<<20, nil)
	v.update(at(330), 14<<20, 100<<20, nil)
	if got := v.pace(); got != "" {
		t.Errorf("what came has to come again: %q", got)
	}
	v.update(at(400), 100<<20, 100<<20, nil)
	if got := v.pace(); !strings.HasSuffix(got, " 0s left") {
		t.Errorf("done: %q", got)
	}
}

func TestPlainLine(t *testing.T) {
	var out bytes.Buffer
	p := (&env{stderr: &screen{out: &out}}).progress("mirror")
	if got := p.line(1<<20, 4<<20); got != "mirror: 1.0 MiB of 4.0 MiB" {
		t.Errorf("at first: %q", got)
	}
	p.view.update(time.Unix(0, 0), 0, 4<<20, nil)
	p.view.update(time.Unix(2, 0), 1<<20, 4<<20, nil)
	if got := p.line(1<<20, 4<<20); got != "mirror: 1.0 MiB of 4.0 MiB, 512.0 KiB/s, 6s left" {
		t.Errorf("got %q", got)
	}
	p.set(1, 2)
	p.reading(0, 105)
	if out.Len() > 0 {
		t.Errorf("told at once: %q", out.String())
	}
	for _, step := range []struct {
		tell func()
		want string
	}{
		{func() { p.reading(0, 105) }, "mirror: reading manifests: 0 of 105 images\n"},
		{func() { p.reading(0, 105) }, ""}, // nothing has changed
		{func() { p.reading(9, 105) }, "mirror: reading manifests: 9 of 105 images\n"},
		{func() { p.set(9, 2048) }, "mirror: 9 B of 2.0 KiB\n"},
		{func() { p.named("base system", 2048, 2048) }, "mirror: base system: 2.0 KiB of 2.0 KiB\n"},
	} {
		p.told = p.told.Add(-plainEvery)
		step.tell()
		if out.String() != step.want {
			t.Errorf("told %q, want %q", out.String(), step.want)
		}
		out.Reset()
	}
}

// A row fits the terminal, and one that is not used is no line at all.
func TestFillers(t *testing.T) {
	var v view
	v.update(time.Now(), 0, 100, blobs(t, "image/"+strings.Repeat("x", 100)+"=60"))
	for _, width := range []int{0, 1, 10, 80, 300} {
		var out bytes.Buffer
		for _, f := range v.fillers() {
			if err := f.Fill(&out, decor.Statistics{AvailableWidth: width}); err != nil {
				t.Fatal(err)
			}
		}
		line, found := strings.CutSuffix(out.String(), "\n")
		if !found || strings.Contains(line, "\n") || len([]rune(line)) > max(width, 2) {
			t.Errorf("in %d columns: %q", width, out.String())
		}
		if width == 300 && !strings.HasSuffix(line, "from host") {
			t.Errorf("in %d columns: %q", width, line)
		}
	}
}

func TestShellWords(t *testing.T) {
	got := shellWords([]string{"mirror", "-f", "a b.yaml", "--mirror", "h=http://x:1/y,z=https://w", "--source=it's", "", "$HOME"})
	if want := `mirror -f 'a b.yaml' --mirror h=http://x:1/y,z=https://w '--source=it'\''s' '' '$HOME'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
