package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll/bundle"
	sourcetree "atoll/bundle/source"
)

// upstream serves archives and files by path, as GitHub does: with no length and no ranges.
type upstream struct {
	url string

	mu       sync.Mutex
	files    map[string][]byte
	requests int
	cut      int  // the next so many bodies end in the middle, by a broken connection
	short    int  // so do these, but they look whole
	endless  bool // bodies are sent over and over
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{files: map[string][]byte{
		"/k/manifests/archive/c0ffee.tar.gz":       archiveOf(t, "manifests-c0ffee/", manifests),
		"/k/manifests/archive/refs/tags/v1.tar.gz": archiveOf(t, "manifests-1/", manifests),
		"/k/api/releases/api.yaml":                 []byte("kind: API\n"),
	}}
	srv := httptest.NewServer(u)
	t.Cleanup(srv.Close)
	u.url = srv.URL
	return u
}

var manifests = map[string]string{
	"common/a.yaml": "kind: A\n", "common/b/b.yaml": "kind: B\n", "other/c.yaml": "kind: C\n", "big": strings.Repeat("some text, ", 50_000),
}

func archiveOf(t *testing.T, prefix string, files map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "c0ffee"}})
	for _, name := range slices.Sorted(maps.Keys(files)) {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: prefix + name, Mode: 0o664, Size: int64(len(files[name]))}))
		_, werr := io.WriteString(w, files[name])
		err = errors.Join(err, werr)
	}
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.requests++
	data, ok := u.files[r.URL.Path]
	cut, short := u.cut > 0, u.short > 0
	if cut {
		u.cut--
	} else if short {
		u.short--
	}
	endless := u.endless
	u.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	if cut || short {
		data = data[:len(data)/2]
	}
	w.Write(data)
	w.(http.Flusher).Flush() // so that it has no length
	for endless {
		if _, err := w.Write(data); err != nil {
			return
		}
	}
	if cut {
		panic(http.ErrAbortHandler)
	}
}

func (u *upstream) asked() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.requests
	u.requests = 0
	return n
}

func (u *upstream) options() *Options {
	return &Options{Mirrors: map[string]string{"git.example.com": u.url}, pause: time.Millisecond}
}

// treeOf is the folder's git tree hash, and the folder.
func treeOf(t *testing.T, files map[string]string) (hash, dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, data := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := sourcetree.ReadFolder(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	return tree.Hash(), dir
}

func (u *upstream) sources(t *testing.T) []bundle.Source {
	hash, _ := treeOf(t, manifests)
	return []bundle.Source{
		{Name: "manifests", Repository: "https://git.example.com/k/manifests", Ref: "v1", Commit: "c0ffee", Tree: hash, Path: "common"},
		{Name: "api", URL: "https://git.example.com/k/api/releases/api.yaml", SHA256: bundle.DigestOf([]byte("kind: API\n")).Hex},
	}
}

// contents are a stored source's files, one "name=content" each.
func contents(t *testing.T, s *bundle.Store, l bundle.LockedSource) []string {
	t.Helper()
	tree, err := OpenSource(s, l)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for name, data := range tree.Files() {
		out = append(out, name+"="+string(data))
	}
	return out
}

func checkContents(t *testing.T, s *bundle.Store, locked []bundle.LockedSource) {
	t.Helper()
	if got, want := contents(t, s, locked[0]), []string{"common/a.yaml=kind: A\n", "common/b/b.yaml=kind: B\n"}; !slices.Equal(got, want) {
		t.Errorf("%s has %q, want %q", locked[0].Name, got, want)
	}
	if got, want := contents(t, s, locked[1]), []string{"api.yaml=kind: API\n"}; !slices.Equal(got, want) {
		t.Errorf("%s has %q, want %q", locked[1].Name, got, want)
	}
}

func TestSources(t *testing.T) {
	u := newUpstream(t)
	sources := u.sources(t)
	s := newStore(t)
	locked, err := FetchSources(context.Background(), definition(t, ""), sources, nil, s, u.options())
	if err != nil {
		t.Fatal(err)
	}
	checkContents(t, s, locked)
	for i, l := range locked {
		if l.Name != sources[i].Name || l.URL != sources[i].Archive() || l.Tree != sources[i].Tree || l.Modified || l.FirstSight {
			t.Errorf("locked as %+v", l)
		}
	}
	if sum := bundle.DigestOf([]byte("kind: API\n")); locked[1].Digest != sum {
		t.Errorf("file is locked by %s, want its own digest %s", locked[1].Digest, sum)
	}

	// By tag, with nothing known of it, it is the same.
	first := []bundle.Source{{Name: "manifests", Repository: sources[0].Repository, Ref: "v1", Path: "common"}, {Name: "api", URL: sources[1].URL}}
	seen, err := FetchSources(context.Background(), definition(t, ""), first, nil, newStore(t), u.options())
	if err != nil {
		t.Fatal(err)
	}
	if seen[0].Digest != locked[0].Digest || seen[0].Tree != sources[0].Tree || seen[0].Modified || seen[1].Digest != locked[1].Digest || !seen[0].FirstSight || !seen[1].FirstSight {
		t.Errorf("at first sight it is locked as %+v", seen)
	}

	u.asked()
	lock := &bundle.Lock{Sources: locked}
	if err := MirrorSources(context.Background(), sources, lock, s, u.options()); err != nil {
		t.Fatal(err)
	}
	if n := u.asked(); n > 0 {
		t.Errorf("a full store asked %d times", n)
	}
	s = newStore(t)
	if _, err := OpenSource(s, locked[0]); !errors.Is(err, bundle.ErrIncomplete) {
		t.Errorf("empty store: got %v", err)
	}
	if err := MirrorSources(context.Background(), sources, lock, s, u.options()); err != nil {
		t.Fatal(err)
	}
	checkContents(t, s, locked)
}

func TestSourcesFromDisk(t *testing.T) {
	u := newUpstream(t)
	sources := u.sources(t)
	_, dir := treeOf(t, manifests)
	archive, file := filepath.Join(t.TempDir(), "x.tgz"), filepath.Join(t.TempDir(), "other-name")
	for path, data := range map[string][]byte{archive: archiveOf(t, "x/", manifests), file: []byte("kind: API\n")} {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := FetchSources(context.Background(), definition(t, ""), sources, nil, newStore(t), u.options())
	if err != nil {
		t.Fatal(err)
	}
	u.asked()
	for _, place := range []string{dir, archive} {
		o := u.options()
		o.Sources = map[string]string{"manifests": place, "api": file, "k3s": "/nowhere"}
		s := newStore(t)
		locked, err := FetchSources(context.Background(), definition(t, ""), sources, nil, s, o)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(locked, want) {
			t.Errorf("from %s: locked as %+v, want %+v", place, locked, want)
		}
		checkContents(t, s, locked)
		s = newStore(t)
		if err := MirrorSources(context.Background(), sources, &bundle.Lock{Sources: want}, s, o); err != nil {
			t.Fatal(err)
		}
		checkContents(t, s, want)
		tree, err := ReadSource(sources[0], o)
		if err != nil || tree.Hash() != sources[0].Tree {
			t.Errorf("reading %s: %v", place, err)
		}
	}
	if n := u.asked(); n > 0 {
		t.Errorf("upstream was asked %d times", n)
	}

	for name, o := range map[string]*Options{
		"nothing there":     {Sources: map[string]string{"manifests": dir + "/none", "api": file}},
		"folder for a file": {Sources: map[string]string{"manifests": dir, "api": dir}},
		"device":            {Sources: map[string]string{"manifests": os.DevNull, "api": file}},
		"file for a tree":   {Sources: map[string]string{"manifests": file, "api": file}},
	} {
		if _, err := FetchSources(context.Background(), definition(t, ""), sources, nil, newStore(t), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestModifiedSources(t *testing.T) {
	u := newUpstream(t)
	sources := u.sources(t)
	changed := maps.Clone(manifests)
	changed["common/a.yaml"] = "kind: Mine\n"
	hash, dir := treeOf(t, changed)
	s := newStore(t)
	o := u.options()
	o.Sources = map[string]string{"manifests": dir}

	_, err := FetchSources(context.Background(), definition(t, ""), sources, nil, s, o)
	checkText(t, err, "source manifests from "+dir, hash, sources[0].Tree, "--source manifests=PATH", "--allow-modified manifests")
	_, err = ReadSource(sources[0], o)
	checkText(t, err, hash, sources[0].Tree)

	o.AllowModified = []string{"manifests", "api"}
	if _, err := ReadSource(sources[0], o); err != nil {
		t.Error(err)
	}
	locked, err := FetchSources(context.Background(), definition(t, ""), sources, nil, s, o)
	if err != nil {
		t.Fatal(err)
	}
	if !locked[0].Modified || locked[0].Tree != hash || locked[0].URL != sources[0].Archive() || locked[1].Modified {
		t.Errorf("locked as %+v", locked)
	}
	data, err := (&bundle.Lock{Definition: hashOf(nil), Manifests: hashOf(nil), Platform: "linux/amd64", Epoch: time.Unix(1<<30, 0), Sources: locked}).Encode()
	if err != nil || bytes.Contains(data, []byte(dir)) {
		t.Errorf("the lock names this machine's folder: %v\n%s", err, data)
	}

	// Another machine has the lock alone, and must be given what was changed.
	lock, s := &bundle.Lock{Sources: locked}, newStore(t)
	u.asked()
	err = MirrorSources(context.Background(), sources[:1], &bundle.Lock{Sources: locked[:1]}, s, u.options())
	checkText(t, err, "source manifests was locked with changes", "--source manifests=PATH")
	if !errors.Is(err, bundle.ErrIncomplete) || u.asked() > 0 {
		t.Errorf("without the place: got %v", err)
	}
	_, unchanged := treeOf(t, manifests)
	o = u.options()
	o.Sources = map[string]string{"manifests": unchanged}
	err = MirrorSources(context.Background(), sources, lock, s, o)
	checkText(t, err, "source manifests from "+unchanged, locked[0].Digest.String(), hash, sources[0].Tree, "it was locked with changes")
	checkCorrupt(t, err)
	o.Sources["manifests"] = dir
	if err := MirrorSources(context.Background(), sources, lock, s, o); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, s, locked[0]); got[0] != "common/a.yaml=kind: Mine\n" {
		t.Errorf("got %q", got)
	}
}

func checkText(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want it to say %q", err, part)
		}
	}
}

func checkCorrupt(t *testing.T, err error) {
	t.Helper()
	var corrupt *bundle.CorruptError
	if !errors.As(err, &corrupt) || !errors.Is(err, bundle.ErrIncomplete) {
		t.Errorf("got %v, want it corrupt and the mirror incomplete", err)
	}
}

func TestCheckSources(t *testing.T) {
	sources := []bundle.Source{{Name: "manifests", Repository: "https://git.example.com/k/manifests", Ref: "v1"}}
	for _, tc := range []struct {
		o       *Options
		sources []bundle.Source
		want    string
	}{
		{nil, sources, ""},
		{&Options{Sources: map[string]string{"k3s": "x", "manifests": "y"}, AllowModified: []string{"manifests"}}, sources, ""},
		{&Options{Sources: map[string]string{"manifest": "y"}}, sources, `source "manifest" is not known: there is k3s, manifests`},
		{&Options{Sources: map[string]string{"manifests": "y"}}, nil, `source "manifests" is not known: there is k3s`},
		{&Options{AllowModified: []string{"k3s"}}, sources, `source "k3s" cannot be allowed to be modified: the stack has manifests`},
		{&Options{AllowModified: []string{"x"}}, nil, `source "x" cannot be allowed to be modified: the stack has no sources`},
	} {
		err := CheckSources(tc.o, tc.sources)
		if got := ""; err != nil {
			got = err.Error()
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		} else if tc.want != "" {
			t.Errorf("no error, want %q", tc.want)
		}
		if tc.want == "" {
			continue
		}
		if _, err := FetchSources(context.Background(), definition(t, ""), tc.sources, nil, newStore(t), tc.o); err == nil || err.Error() != tc.want {
			t.Errorf("fetching: got %v, want %q", err, tc.want)
		}
	}
}

func TestSourcesCancelled(t *testing.T) {
	u := newUpstream(t)
	why := errors.New("that is enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	if _, err := FetchSources(ctx, definition(t, ""), u.sources(t), nil, newStore(t), u.options()); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	if err := MirrorSources(ctx, u.sources(t), &bundle.Lock{}, newStore(t), u.options()); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

// TestSourcesDiskFull: it is the disk that is told of, not upstream.
func TestSourcesDiskFull(t *testing.T) {
	u := newUpstream(t)
	dir := t.TempDir()
	s, err := bundle.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "tmp")); err != nil {
		t.Fatal(err)
	}
	if _, err := FetchSources(context.Background(), definition(t, ""), u.sources(t), nil, s, u.options()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want the disk's error", err)
	}
}
