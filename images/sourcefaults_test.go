package images

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"atoll/bundle"
)

func TestSourceFaults(t *testing.T) {
	const manifestsPath, apiPath = "/k/manifests/archive/c0ffee.tar.gz", "/k/api/releases/api.yaml"
	host := func(u *upstream) string { return strings.TrimPrefix(u.url, "http://") }
	changed := maps.Clone(manifests)
	changed["common/a.yaml"] = "kind: Another\n"
	for _, tc := range []struct {
		name   string
		break_ func(*testing.T, *upstream)
		fetch  []string // what the errors say
		mirror func(*testing.T, error)
	}{
		{"cut twice", func(_ *testing.T, u *upstream) { u.cut = 2 }, nil, nil},
		{"short twice", func(_ *testing.T, u *upstream) { u.short = 2 }, nil, nil},
		{"cut for ever", func(_ *testing.T, u *upstream) { u.cut = 1000 }, []string{"cut short at"}, checkCorrupt},
		{"short for ever", func(_ *testing.T, u *upstream) { u.short = 1000 }, []string{"unexpected EOF"}, checkCorrupt},
		{"another tree", func(t *testing.T, u *upstream) { u.files[manifestsPath] = archiveOf(t, "x/", changed) },
			[]string{"has git tree", "the stack wants"}, checkCorrupt},
		{"another file", func(_ *testing.T, u *upstream) { u.files[apiPath] = []byte("kind: Other\n") },
			[]string{"source api from", "has sha256", "the stack wants"}, checkCorrupt},
		{"a page", func(_ *testing.T, u *upstream) { u.files[manifestsPath] = []byte(strings.Repeat("<p>log in</p>", 100)) },
			[]string{"no sound tar"}, checkCorrupt},
		{"gone", func(_ *testing.T, u *upstream) { u.files = nil }, []string{"does not have it", "source api: "}, func(t *testing.T, err error) {
			var gone *GoneError
			if !errors.As(err, &gone) || !strings.HasPrefix(gone.Host, "127.0.0.1:") || !errors.Is(err, bundle.ErrIncomplete) {
				t.Errorf("got %v, want it gone", err)
			}
		}},
		{"names lead out", func(t *testing.T, u *upstream) {
			u.files[manifestsPath] = archiveOf(t, "x/", map[string]string{"../../f": ""})
		}, []string{"refused", `"x/../../f"`}, nil},
		{"grows without end", func(t *testing.T, u *upstream) {
			var buf bytes.Buffer
			z := gzip.NewWriter(&buf)
			z.Write(make([]byte, 1<<20))
			z.Close()
			u.files[manifestsPath], u.endless = buf.Bytes(), true
		}, []string{"refused", "grows without end", "it has more than 64 MiB"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t)
			sources := u.sources(t)
			whole := newStore(t)
			locked, err := FetchSources(context.Background(), definition(t, ""), sources, nil, whole, u.options())
			if err != nil {
				t.Fatal(err)
			}
			healthy := maps.Clone(u.files)
			tc.break_(t, u)
			_, err = FetchSources(context.Background(), definition(t, ""), sources, nil, newStore(t), u.options())
			if len(tc.fetch) == 0 && err != nil {
				t.Errorf("fetching: %v", err)
			}
			if len(tc.fetch) > 0 {
				checkText(t, err, append(tc.fetch, "--source ", "=PATH", host(u))...)
			}
			s := newStore(t)
			u.asked()
			err = MirrorSources(context.Background(), sources, &bundle.Lock{Sources: locked}, s, u.options())
			switch {
			case len(tc.fetch) == 0 && err != nil:
				t.Errorf("mirroring: %v", err)
			case len(tc.fetch) > 0 && !errors.Is(err, bundle.ErrIncomplete):
				t.Errorf("mirroring: got %v, want it incomplete", err)
			case tc.mirror != nil:
				tc.mirror(t, err)
			}
			if n := u.asked(); slices.Contains(tc.fetch, "refused") && n != len(sources) {
				t.Errorf("%d requests, want one for each source: no other answer would be taken", n)
			}
			checkStore(t, s)
			u.mu.Lock()
			u.files, u.cut, u.short, u.endless = healthy, 0, 0, false
			u.mu.Unlock()
			if err := MirrorSources(context.Background(), sources, &bundle.Lock{Sources: locked}, s, u.options()); err != nil {
				t.Errorf("next run: %v", err)
			}
			contents(t, s, locked[0])
		})
	}
}

func TestOpenSourceCorrupt(t *testing.T) {
	u := newUpstream(t)
	s := newStore(t)
	locked, err := FetchSources(context.Background(), definition(t, ""), u.sources(t), nil, s, u.options())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range locked {
		whole, err := os.ReadFile(s.Path(l.Digest))
		if err != nil {
			t.Fatal(err)
		}
		flipped := bytes.Clone(whole)
		flipped[len(flipped)/2] ^= 1
		for name, data := range map[string][]byte{"flipped": flipped, "cut": whole[:len(whole)/2], "longer": append(bytes.Clone(whole), 0), "empty": nil} {
			if err := os.WriteFile(s.Path(l.Digest), data, 0o644); err != nil {
				t.Fatal(err)
			}
			var corrupt *bundle.CorruptError
			if _, err := OpenSource(s, l); !errors.As(err, &corrupt) || corrupt.Want != l.Digest {
				t.Errorf("%s is %s: got %v", l.Name, name, err)
			}
		}
	}
	// A blob that is what its digest says, but no tree.
	l := locked[0]
	if l.Digest, err = s.PutBytes(context.Background(), bytes.Repeat([]byte("no tar "), 10_000)); err != nil {
		t.Fatal(err)
	}
	var corrupt *bundle.CorruptError
	if _, err := OpenSource(s, l); err == nil || errors.As(err, &corrupt) {
		t.Errorf("no tree: got %v", err)
	}
}

// TestSourcesLockedBefore: what is the same is not fetched again, and what nobody states a
// hash of must stay what it was at first sight.
func TestSourcesLockedBefore(t *testing.T) {
	u := newUpstream(t)
	sources := u.sources(t)
	sources[1].SHA256 = "" // locked at first sight
	s := newStore(t)
	fetch := func(before []bundle.LockedSource, s *bundle.Store, allow ...string) ([]bundle.LockedSource, error) {
		o := u.options()
		o.AllowModified = allow
		return FetchSources(context.Background(), definition(t, ""), sources, before, s, o)
	}
	first, err := fetch(nil, s)
	if err != nil {
		t.Fatal(err)
	}
	u.asked()
	again, err := fetch(first, s)
	if err != nil || !slices.Equal(again, first) {
		t.Errorf("locked as %+v, %v, want what it was", again, err)
	}
	if n := u.asked(); n > 0 {
		t.Errorf("asked %d times for what the store has", n)
	}
	u.mu.Lock()
	u.files["/k/api/releases/api.yaml"] = []byte("kind: Other\n")
	u.mu.Unlock()
	if _, err := fetch(first, newStore(t)); err == nil || !strings.Contains(err.Error(), "it was locked with "+first[1].Digest.String()) {
		t.Errorf("got %v, want an error that tells that the file changed", err)
	}
	changed, err := fetch(first, newStore(t), "api")
	if err != nil || changed[1].Modified || changed[1].Digest != bundle.DigestOf([]byte("kind: Other\n")) {
		t.Errorf("locked as %+v, %v, want today's file", changed, err)
	}
}

// A source that changes while it is read is never locked as half of each: nobody knows its
// digest before.
func TestSourceOfTwoVersions(t *testing.T) {
	half := 25_000
	a, b := bytes.Repeat([]byte("aaaaaaa\n"), half/4), bytes.Repeat([]byte("bbbbbbb\n"), half/4)
	for name, tags := range map[string][2]string{"strong": {`"a"`, `"b"`}, "none": {"", ""}, "weak": {`W/"a"`, `W/"b"`}, "one": {`"a"`, ""}} {
		t.Run(name, func(t *testing.T) {
			n := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n++
				content, tag, from := b, tags[1], 0
				if n == 1 {
					content, tag = a, tags[0]
				}
				if tag != "" {
					w.Header().Set("ETag", tag)
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(content)))
				if k, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); k == 1 {
					w.Header().Set("Content-Length", strconv.Itoa(len(content)-from))
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
					w.WriteHeader(http.StatusPartialContent)
				}
				if n == 1 {
					w.Write(content[:half])
					w.(http.Flusher).Flush()
					panic(http.ErrAbortHandler)
				}
				w.Write(content[from:])
			}))
			defer server.Close()
			s := newStore(t)
			locked, err := FetchSources(t.Context(), definition(t, ""), []bundle.Source{{Name: "m", URL: server.URL + "/m.yaml"}}, nil, s, &Options{pause: time.Millisecond})
			if err == nil {
				data, err := os.ReadFile(s.Path(locked[0].Digest))
				if err != nil || bytes.Contains(data, []byte("a")) {
					t.Errorf("locked what is neither (%v)", err)
				}
			}
		})
	}
}
