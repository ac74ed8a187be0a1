package images

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"atoll/bundle"
)

func TestMirror(t *testing.T) {
	l := newLab(t)
	amd, arm := randomImage(t, "amd64", 50_000, 3), randomImage(t, "arm64", 50_000, 2)
	idx := randomIndex(t, map[string]v1.Image{"arm64": arm, "amd64": amd})
	single := randomImage(t, "amd64", 1000, 1)
	pin := "quay.io/a/pinned@" + digest(t, idx).String()
	l.push(t, idx, "ghcr.io/a/multi:1", "ghcr.io/a/multi:stable", pin)
	l.push(t, single, "ghcr.io/a/single:1")
	lock := l.lockImages(t, "ghcr.io/a/multi:1", "ghcr.io/a/multi:stable", pin, "ghcr.io/a/single:1")
	for _, im := range lock.Images[:3] {
		if im.Digest != digest(t, idx) || im.Manifest != digest(t, amd) {
			t.Errorf("%s is locked as %s, %s, want the index %s and its manifest %s", im.Reference, im.Digest, im.Manifest, digest(t, idx), digest(t, amd))
		}
	}

	s := newStore(t)
	o := l.options()
	var mu sync.Mutex
	var last Progress
	o.Progress = func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		last.Total, last.Done = p.Total, max(last.Done, p.Done)
	}
	if err := Mirror(context.Background(), definition(t, ""), lock, s, o); err != nil {
		t.Fatal(err)
	}
	if last.Done != last.Total || last.Total < 150_000 {
		t.Errorf("progress ended at %d of %d bytes", last.Done, last.Total)
	}
	l.mu.Lock()
	for line, n := range l.counts {
		if n > 1 && line != "/v2/" {
			t.Errorf("%s was asked for %d times", line, n)
		}
	}
	l.mu.Unlock()
	checkImage(t, s, amd, true)
	checkImage(t, s, arm, false)
	checkImage(t, s, single, true)
	raw, err := idx.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(s.Path(digest(t, idx)))
	if err != nil || !bytes.Equal(kept, raw) {
		t.Errorf("index is not kept as it was: %v", err)
	}

	l.heal()
	if err := Mirror(context.Background(), definition(t, ""), lock, s, o); err != nil {
		t.Fatal(err)
	}
	if len(l.requests) > 0 {
		t.Errorf("a full store asked for %v", l.requests)
	}
}

// checkImage looks for an image's manifest, config and, if whole, layers; else for their absence.
func checkImage(t *testing.T, s *bundle.Store, img v1.Image, whole bool) {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if !has(t, s, digest(t, img)) || !has(t, s, m.Config.Digest) {
		t.Error("manifest or config is missing")
	}
	for _, layer := range m.Layers {
		if has(t, s, layer.Digest) != whole {
			t.Errorf("layer %s: present is %v, want %v", layer.Digest, !whole, whole)
		}
	}
}

func TestMirrorFaults(t *testing.T) {
	corrupt := func(err error) bool {
		var e *bundle.CorruptError
		return errors.As(err, &e) && strings.Contains(err.Error(), "ghcr.io/a/x:1 from 127.0.0.1:")
	}
	gone := func(err error) bool {
		var e *GoneError
		return errors.As(err, &e) && e.Name == "image ghcr.io/a/x:1" && strings.HasPrefix(e.Host, "127.0.0.1:") && errors.Is(err, bundle.ErrIncomplete)
	}
	incomplete := func(err error) bool { return errors.Is(err, bundle.ErrIncomplete) }
	ok := func(err error) bool { return err == nil }
	for _, tc := range []struct {
		name   string
		break_ func(l *lab)
		want   func(error) bool
		least  time.Duration
	}{
		{"blob cut once", func(l *lab) { l.Path, l.Times, l.Truncate = "/blobs/", 1, true }, ok, 0},
		{"blob cut for ever", func(l *lab) { l.Path, l.Times, l.Truncate = "/blobs/", -1, true }, corrupt, 0},
		{"blob flipped once", func(l *lab) { l.Path, l.Times, l.Flip = "/blobs/", 1, true }, ok, 0},
		{"blob flipped for ever", func(l *lab) { l.Path, l.Times, l.Flip = "/blobs/", -1, true }, corrupt, 0},
		{"blob stalls once", func(l *lab) { l.Path, l.Times, l.Stall = "/blobs/", 1, time.Minute }, ok, 0},
		{"blob gone", func(l *lab) { l.Path, l.Times, l.Missing = "/blobs/", -1, true }, gone, 0},
		{"manifest cut once", func(l *lab) { l.Path, l.Times, l.Truncate = "/manifests/", 1, true }, ok, 0},
		{"manifest flipped once", func(l *lab) { l.Path, l.Times, l.Flip = "/manifests/", 1, true }, ok, 0},
		{"manifest flipped for ever", func(l *lab) { l.Path, l.Times, l.Flip = "/manifests/", -1, true }, corrupt, 0},
		{"manifest gone", func(l *lab) { l.Path, l.Times, l.Missing = "/manifests/", -1, true }, gone, 0},
		{"429 with seconds", func(l *lab) { l.Path, l.Times, l.Status, l.RetryAfter = "/a/x/", 1, 429, "1" }, ok, time.Second},
		{"429 without", func(l *lab) { l.Path, l.Times, l.Status = "/a/x/", 2, 429 }, ok, 0},
		{"429 for a day", func(l *lab) { l.Path, l.Times, l.Status, l.RetryAfter = "/a/x/", -1, 429, "86400" }, func(err error) bool {
			return incomplete(err) && strings.Contains(err.Error(), "asks to wait until")
		}, 0},
		{"503 twice", func(l *lab) { l.Path, l.Times, l.Status = "/a/x/", 2, 503 }, ok, 0},
		{"500 for ever", func(l *lab) { l.Path, l.Times, l.Status = "/a/x/", -1, 500 }, incomplete, 0},
		{"denied", func(l *lab) { l.Path, l.Times, l.Status = "/a/x/", -1, http.StatusForbidden }, func(err error) bool {
			return incomplete(err) && strings.Contains(err.Error(), "docker login 127.0.0.1:")
		}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			img := randomImage(t, "amd64", 600_000, 2)
			l.push(t, img, "ghcr.io/a/x:1")
			lock := l.lockImages(t, "ghcr.io/a/x:1")
			s := newStore(t)
			o := l.options()
			o.idle = 300 * time.Millisecond
			tc.break_(l)
			start := time.Now()
			err := Mirror(context.Background(), definition(t, ""), lock, s, o)
			if !tc.want(err) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(start); took < tc.least {
				t.Errorf("took %v: did not wait as long as it was asked to", took)
			}
			checkStore(t, s)
			l.heal()
			if err := Mirror(context.Background(), definition(t, ""), lock, s, o); err != nil {
				t.Errorf("next run: %v", err)
			}
			checkImage(t, s, img, true)
		})
	}
}

// checkStore looks for blobs that are not what their name says.
func checkStore(t *testing.T, s *bundle.Store) {
	t.Helper()
	entries, err := os.ReadDir(s.Path(v1.Hash{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		h := v1.Hash{Algorithm: "sha256", Hex: e.Name()}
		data, err := os.ReadFile(s.Path(h))
		if err != nil {
			t.Fatal(err)
		}
		if bundle.DigestOf(data) != h {
			t.Errorf("store holds corrupt blob %s", h)
		}
	}
}

func TestMirrorGoesOnInTheMiddle(t *testing.T) {
	l := newLab(t)
	l.push(t, randomImage(t, "amd64", 2_000_000, 1), "ghcr.io/a/x:1")
	lock := l.lockImages(t, "ghcr.io/a/x:1")
	l.Path, l.Times, l.Truncate = "/blobs/", 1, true
	if err := Mirror(context.Background(), definition(t, ""), lock, newStore(t), l.options()); err != nil {
		t.Fatal(err)
	}
	if l.ranges == 0 {
		t.Error("blob was asked for from its start again, want a part")
	}
}

func TestMirrorWithoutOtherPlatform(t *testing.T) {
	l := newLab(t)
	amd, arm := randomImage(t, "amd64", 1000, 1), randomImage(t, "arm64", 1000, 1)
	l.push(t, randomIndex(t, map[string]v1.Image{"amd64": amd, "arm64": arm}), "ghcr.io/a/x:1")
	lock := l.lockImages(t, "ghcr.io/a/x:1")
	l.Path, l.Times, l.Missing = digest(t, arm).String(), -1, true
	if err := Mirror(context.Background(), definition(t, ""), lock, newStore(t), l.options()); err != nil {
		t.Errorf("other platform is missing: %v", err)
	}
	l.Path = digest(t, amd).String()
	var gone *GoneError
	if err := Mirror(context.Background(), definition(t, ""), lock, newStore(t), l.options()); !errors.As(err, &gone) || gone.Digest != digest(t, amd) {
		t.Errorf("wanted platform is missing: got %v", err)
	}
}

// TestMirrorTriesEverySource: a layer that two images share is gone from one's repository.
func TestMirrorTriesEverySource(t *testing.T) {
	l := newLab(t)
	a := randomImage(t, "amd64", 1000, 2)
	layers, err := a.Layers()
	if err != nil {
		t.Fatal(err)
	}
	b, err := mutate.AppendLayers(randomImage(t, "amd64", 1000, 1), layers...)
	if err != nil {
		t.Fatal(err)
	}
	l.push(t, a, "ghcr.io/a/a:1")
	l.push(t, b, "quay.io/b/b:1")
	lock := l.lockImages(t, "ghcr.io/a/a:1", "quay.io/b/b:1")
	for _, repo := range []string{"ghcr.io/a/a", "quay.io/b/b"} {
		l.Path, l.Times, l.Missing = repo+"/blobs/"+digest(t, layers[0]).String(), -1, true
		s := newStore(t)
		if err := Mirror(context.Background(), definition(t, ""), lock, s, l.options()); err != nil {
			t.Errorf("%s lacks a layer: %v", repo, err)
		}
		checkImage(t, s, a, true)
		checkImage(t, s, b, true)
	}
}

func TestMirrorKeepsTheRest(t *testing.T) {
	l := newLab(t)
	good, bad := randomImage(t, "amd64", 1000, 1), randomImage(t, "amd64", 1000, 1)
	l.push(t, good, "ghcr.io/a/good:1")
	l.push(t, bad, "ghcr.io/a/bad:1")
	lock := l.lockImages(t, "ghcr.io/a/bad:1", "ghcr.io/a/good:1")
	l.Path, l.Times, l.Missing = "/bad/", -1, true
	s := newStore(t)
	if err := Mirror(context.Background(), definition(t, ""), lock, s, l.options()); !errors.Is(err, bundle.ErrIncomplete) {
		t.Errorf("got %v, want incomplete", err)
	}
	checkImage(t, s, good, true)
}

func TestMirrorCancelled(t *testing.T) {
	l := newLab(t)
	l.push(t, randomImage(t, "amd64", 1000, 1), "ghcr.io/a/x:1")
	lock := l.lockImages(t, "ghcr.io/a/x:1")
	l.Path, l.Times, l.Status, l.RetryAfter = "/a/x/", -1, 429, "300"
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := Mirror(ctx, definition(t, ""), lock, newStore(t), l.options()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v to stop", took)
	}
}

func TestMirrorDiskFull(t *testing.T) {
	l := newLab(t)
	l.push(t, randomImage(t, "amd64", 1000, 4), "ghcr.io/a/x:1")
	lock := l.lockImages(t, "ghcr.io/a/x:1")
	dir := t.TempDir()
	s, err := bundle.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir + "/tmp"); err != nil { // as good as full: nothing can be written
		t.Fatal(err)
	}
	err = Mirror(context.Background(), definition(t, ""), lock, s, l.options())
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want the disk's error", err)
	}
}
