package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"atoll/bundle"
)

func testDownload(name string, size int64, hosts ...string) *download {
	d := &download{name: name, digest: v1.Hash{Algorithm: "sha256", Hex: name}, size: size}
	for _, h := range hosts {
		d.sources = append(d.sources, source{host: h})
	}
	return d
}

func TestTally(t *testing.T) {
	a, b, c := testDownload("a", 100, "one", "two"), testDownload("b", 50, "two"), testDownload("c", 7)
	var all []Progress
	tl := newTally([]*download{a, b, c}, func(p Progress) { all = append(all, p) })
	tl.tell()
	ta, tb := tl.begin(a), tl.begin(b)
	ta.add(60)
	tb.add(50)
	ta.from("two")
	tl.tell()
	tl.end(tb, nil)
	tl.tell()
	ta.add(-60) // all of it comes again
	ta.add(30)
	tl.end(ta, errors.New("broke"))
	tl.tell()

	if p := all[0]; p.Done != 0 || p.Total != 157 || p.Blobs != 3 || len(p.Moving) != 0 ||
		!slices.Equal(p.Hosts, []HostShare{{"", 1, 7}, {"one", 1, 100}, {"two", 1, 50}}) {
		t.Errorf("first: %+v", p)
	}
	if p := all[1]; p.Done != 110 || len(p.Moving) != 2 || p.Moving[0] != (Blob{"a", a.digest, "two", 60, 100}) || len(p.Finished) != 0 {
		t.Errorf("both move: %+v", p)
	}
	if p := all[2]; p.Done != 110 || len(p.Moving) != 1 || !slices.Equal(p.Finished, []Blob{{"b", b.digest, "two", 50, 50}}) {
		t.Errorf("one is there: %+v", p)
	}
	if p := all[3]; p.Done != 80 || len(p.Moving) != 0 || len(p.Finished) != 0 {
		t.Errorf("one has failed: %+v", p)
	}
	if tl.left() != 77 {
		t.Errorf("%d bytes are left, want 77", tl.left())
	}
}

// The host that is told is the one that has it, not the one that was asked first.
func TestTallyHost(t *testing.T) {
	data := []byte("content")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	d := &download{name: "a", digest: bundle.DigestOf(data), size: int64(len(data)),
		sources: []source{{host: "one", path: file + ".none"}, {host: "two", path: file}}}
	c, err := newClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := newTally([]*download{d}, func(Progress) {}).begin(d)
	if err := c.fetch(t.Context(), newStore(t), d, tr); err != nil {
		t.Fatal(err)
	}
	if b := tr.now(); b.Host != "two" || b.Done != b.Total {
		t.Errorf("got %+v", b)
	}
}

// What is told while many transfers run adds up, and is never told twice at once.
func TestTallyAtOnce(t *testing.T) {
	var list []*download
	for i := range 50 {
		list = append(list, testDownload(fmt.Sprint(i), 1000, "h"))
	}
	var last Progress
	finished, first := 0, true // written without a lock: the race detector looks on
	tl := newTally(list, func(p Progress) {
		if p.Done < last.Done || p.Done > p.Total || first && p.Done != 0 {
			t.Errorf("progress went from %d to %d of %d", last.Done, p.Done, p.Total)
		}
		first, last = false, p
		finished += len(p.Finished)
	})
	stop := tl.watch()
	var wg sync.WaitGroup
	for _, d := range list {
		wg.Go(func() {
			tr := tl.begin(d)
			for range 1000 {
				tr.add(1)
			}
			tl.end(tr, nil)
		})
	}
	wg.Wait()
	stop()
	if last.Done != 50_000 || len(last.Moving) != 0 || finished != 50 || tl.left() != 0 {
		t.Errorf("ended with %+v, %d finished", last, finished)
	}
}

// While a manifest is waited for, it is told how many images have been read: by their
// names, before there is any other progress.
func TestReading(t *testing.T) {
	l := newLab(t)
	x, stable, y := "ghcr.io/a/x:1", "ghcr.io/a/x:stable", "ghcr.io/a/y:1"
	l.push(t, randomImage(t, "amd64", 1000, 1), x, stable)
	l.push(t, randomImage(t, "amd64", 1000, 1), y)
	lock := l.lockImages(t, x, stable, y)
	for name, run := range map[string]func(*Options) error{
		"mirror": func(o *Options) error { return Mirror(t.Context(), definition(t, ""), lock, newStore(t), o) },
		"lock": func(o *Options) error {
			c, err := newClient(o)
			if err != nil {
				return err
			}
			_, err = c.resolveImages(t.Context(), []Wanted{{Reference: x}, {Reference: stable}, {Reference: y}}, "amd64")
			return err
		},
	} {
		told := make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/a/y/manifests/") {
				select {
				case <-told:
				case <-r.Context().Done():
				}
			}
			l.ServeHTTP(w, r)
		}))
		o := l.options()
		o.Mirrors["ghcr.io"] = srv.URL + "/ghcr.io"
		last, over := 0, false
		o.Reading = func(done, total int) {
			if done < last || total != 3 || over {
				t.Errorf("%s: %d of %d images, after %d", name, done, total, last)
			}
			if done == 2 && last < 2 {
				close(told)
			}
			last = done
		}
		o.Progress = func(Progress) { over = true }
		if err := run(o); err != nil || last != 3 {
			t.Errorf("%s: %d of 3 images were read: %v", name, last, err)
		}
		srv.Close()
	}
}

func BenchmarkTransferAdd(b *testing.B) {
	tl := newTally(nil, func(Progress) {})
	defer tl.watch()()
	b.RunParallel(func(pb *testing.PB) {
		tr := tl.begin(testDownload("x", 1, "h"))
		for pb.Next() {
			tr.add(1)
		}
		tl.end(tr, nil)
	})
}

func TestFailures(t *testing.T) {
	gone := &GoneError{Name: "image a", Host: "h"}
	one := &FetchError{Names: []string{"image b", "image c"}, Host: "g", Err: gone}
	plain := fmt.Errorf("package x: %w", fs.ErrPermission)
	err := &IncompleteError{Left: 5, Err: errors.Join(fmt.Errorf("%w (from there)", gone), errors.Join(one, plain))}
	all := Failures(fmt.Errorf("mirroring: %w", err))
	if len(all) != 3 || all[0].Names[0] != "image a" || all[0].Host != "h" || all[0].Error() != gone.Error()+" (from there)" ||
		all[1] != one || all[2].Names != nil || !errors.Is(all[2], fs.ErrPermission) {
		t.Errorf("got %v", all)
	}
	var corrupt *bundle.CorruptError
	if !errors.Is(err, bundle.ErrIncomplete) || !errors.Is(err, fs.ErrPermission) || errors.As(err, &corrupt) {
		t.Errorf("%v is not what its parts are", err)
	}
	if Failures(nil) != nil {
		t.Error("nil has failures")
	}
}

func TestSaid(t *testing.T) {
	asked := func(err error) error { return &url.Error{Op: "Get", URL: "https://h/v2/a/1", Err: err} }
	refused := &transport.Error{StatusCode: http.StatusForbidden, Errors: []transport.Diagnostic{{Code: transport.DeniedErrorCode, Message: "pull from a"}}}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{&GoneError{Name: "image a", Host: "h"}, "no longer has it"},
		{&bundle.CorruptError{Name: "image a from h"}, "sends it corrupt"},
		{&bundle.CorruptError{Name: "image a from h", Err: errors.New("cut short")}, "sends it corrupt: cut short"},
		{explain(refused, "image a", "h"), `denies access: check the name, or log in with "docker login h": 403 Forbidden: DENIED: pull from a`},
		{explain(&transport.Error{StatusCode: 500}, "image a", "h"), "500 Internal Server Error"},
		{explain(asked(&net.OpError{Op: "dial", Err: errors.New("refused")}), "image a", "h"),
			"cannot be reached: check the network, or send its traffic elsewhere with --mirror: dial: refused"},
		{explain(asked(asked(errors.New("h asks to wait"))), "image a", "h"), "h asks to wait"},
		{errors.New("else"), "else"},
	} {
		if got := (&FetchError{Names: []string{"image a"}, Host: "h", Err: tc.err}).Said(); got != tc.want {
			t.Errorf("of %q: got %q, want %q", tc.err, got, tc.want)
		}
	}
}

// An image is named by all of its names, and what is left is told whether its manifest
// came or not.
func TestIncomplete(t *testing.T) {
	for _, what := range []string{"/manifests/", "/blobs/"} {
		l := newLab(t)
		x, y := "ghcr.io/a/x:1", "ghcr.io/b/y:1"
		l.push(t, randomImage(t, "amd64", 100_000, 2), x, y)
		lock := l.lockImages(t, x, y)
		l.heal()
		l.Path, l.Times, l.Missing = what, -1, true
		var last Progress
		o := l.options()
		o.Progress = func(p Progress) { last = p }
		err := Mirror(context.Background(), definition(t, ""), lock, newStore(t), o)
		var incomplete *IncompleteError
		if !errors.As(err, &incomplete) {
			t.Fatalf("%s are gone: got %v", what, err)
		}
		all := Failures(err)
		if want := map[string]int{"/manifests/": 1, "/blobs/": 3}[what]; len(all) != want {
			t.Errorf("%s are gone: %d failures, want %d", what, len(all), want)
		}
		for _, f := range all {
			if !slices.Equal(f.Names, []string{"image " + x, "image " + y}) || !strings.HasPrefix(f.Host, "127.0.0.1:") || f.Said() != "no longer has it" {
				t.Errorf("%s are gone: %v lack it, %s said %q", what, f.Names, f.Host, f.Said())
			}
		}
		switch {
		case what == "/manifests/" && incomplete.Left != lock.Images[0].Size:
			t.Errorf("%d bytes are left, want the image's %d", incomplete.Left, lock.Images[0].Size)
		case what == "/blobs/" && (incomplete.Left != last.Total || last.Done != 0 || last.Total < 200_000):
			t.Errorf("%d bytes are left, %d of %d came", incomplete.Left, last.Done, last.Total)
		}
	}
}
