package images

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"atoll/bundle"
)

// lab is a real registry with faults that are off until they are set. Requests
// for ghcr.io and quay.io go to it, below a path of their own.
type lab struct {
	url     string
	handler http.Handler

	mu       sync.Mutex
	requests []string
	counts   map[string]int // by request line
	ranges   int            // requests for a part

	// Each fault hits requests whose path contains Path, Times times each path;
	// negative Times is for ever.
	Path  string
	Times int

	Truncate   bool          // the body ends in the middle
	Flip       bool          // a bit of the body is another
	Missing    bool          // 404
	Status     int           // another status
	RetryAfter string        // with Status
	Stall      time.Duration // half of the body, then nothing for so long
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{handler: registry.New(registry.Logger(log.New(&bytes.Buffer{}, "", 0))), counts: map[string]int{}}
	srv := httptest.NewServer(l)
	t.Cleanup(srv.Close)
	l.url = srv.URL
	return l
}

func (l *lab) options() *Options {
	return &Options{
		Mirrors: map[string]string{"ghcr.io": l.url + "/ghcr.io", "quay.io": l.url + "/quay.io"},
		pause:   time.Millisecond, idle: 5 * time.Second,
	}
}

// heal turns all faults off.
func (l *lab) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Path, l.Truncate, l.Flip, l.Missing, l.Status, l.RetryAfter, l.Stall = "", false, false, false, 0, "", 0
	l.requests, l.counts, l.ranges = nil, map[string]int{}, 0
}

func (l *lab) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		l.handler.ServeHTTP(w, r)
		return
	}
	l.mu.Lock()
	line := r.URL.Path
	l.requests = append(l.requests, line)
	l.counts[line]++
	if r.Header.Get("Range") != "" {
		l.ranges++
	}
	hit := l.Path != "" && strings.Contains(line, l.Path) && (l.Times < 0 || l.counts[line] <= l.Times)
	truncate, flip, missing, status, after, stall := l.Truncate, l.Flip, l.Missing, l.Status, l.RetryAfter, l.Stall
	l.mu.Unlock()
	if !hit {
		l.handler.ServeHTTP(w, r)
		return
	}
	if missing {
		status = http.StatusNotFound
	}
	if status != 0 {
		w.Header().Set("Retry-After", after)
		http.Error(w, `{"errors":[{"code":"LAB","message":"as the test wants it"}]}`, status)
		return
	}
	rec := httptest.NewRecorder()
	l.handler.ServeHTTP(rec, r)
	body := rec.Body.Bytes()
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(rec.Code)
	if flip && len(body) > 0 {
		body = bytes.Clone(body)
		body[len(body)/3] ^= 1
	}
	if truncate || stall > 0 {
		body = body[:len(body)/2]
	}
	w.Write(body)
	if stall > 0 {
		w.(http.Flusher).Flush()
		select {
		case <-time.After(stall):
		case <-r.Context().Done():
		}
	}
	if truncate || stall > 0 {
		panic(http.ErrAbortHandler)
	}
}

// push puts an image or index under names; the canonical name is the path.
func (l *lab) push(t *testing.T, what remote.Taggable, names ...string) {
	t.Helper()
	for _, n := range names {
		ref, err := name.ParseReference(strings.TrimPrefix(l.url, "http://") + "/" + n)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Push(ref, what); err != nil {
			t.Fatal(err)
		}
	}
}

// randomImage has a config that names a platform.
func randomImage(t *testing.T, arch string, size int64, layers int) v1.Image {
	t.Helper()
	img, err := random.Image(size, int64(layers))
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

func randomIndex(t *testing.T, images map[string]v1.Image) v1.ImageIndex {
	t.Helper()
	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for arch, img := range images {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	return idx
}

func digest(t *testing.T, what interface{ Digest() (v1.Hash, error) }) v1.Hash {
	t.Helper()
	h, err := what.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newStore(t *testing.T) *bundle.Store {
	t.Helper()
	s, err := bundle.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func has(t *testing.T, s *bundle.Store, h v1.Hash) bool {
	t.Helper()
	ok, err := s.Has(context.Background(), h, -1)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func definition(t *testing.T, more string) *bundle.Definition {
	t.Helper()
	d, err := bundle.ParseDefinition("appliance.yaml", fmt.Appendf(nil, "name: box\nk3s: {version: v1.34.4+k3s1}\nstack: lab\n%s", more))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// lockImages resolves images alone.
func (l *lab) lockImages(t *testing.T, refs ...string) *bundle.Lock {
	t.Helper()
	c, err := newClient(l.options())
	if err != nil {
		t.Fatal(err)
	}
	var wanted []Wanted
	for _, r := range refs {
		wanted = append(wanted, Wanted{Reference: r, Tier: bundle.TierRequired})
	}
	images, err := c.resolveImages(context.Background(), wanted, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	l.heal()
	return &bundle.Lock{Images: images}
}
