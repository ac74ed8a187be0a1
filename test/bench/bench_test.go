package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestSet(t *testing.T) {
	set, err := newImageSet(t.Context(), 2e6)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(set.images); n != 105 {
		t.Errorf("set has %d images", n)
	}
	if n := len(set.blobs); n != 216 {
		t.Errorf("set has %d blobs", n)
	}
	if set.bytes < 2e6 || set.bytes > 3e6 || set.pulled < 3*set.bytes/2 {
		t.Errorf("blobs have %d bytes, %d with shared layers each time", set.bytes, set.pulled)
	}
	// What a run measures is comparable with another's only if the set is the same.
	digest, err := set.images[52].Digest()
	if err != nil {
		t.Fatal(err)
	}
	if want := "sha256:d0ccad7f35a8fa2b4364848b6b4fe2e1863d229dbc59d097876f076760d87dce"; digest.String() != want {
		t.Errorf("an image has digest %s, want %s", digest, want)
	}
}

func TestLayerIsWhatItSays(t *testing.T) {
	l := &layer{seed: 7, content: 100_000}
	if err := l.measure(); err != nil {
		t.Fatal(err)
	}
	r, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	packed, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if got, n, _ := v1.SHA256(bytes.NewReader(packed)); got != l.digest || n != l.size {
		t.Errorf("blob is %s of %d bytes, want %s of %d", got, n, l.digest, l.size)
	}
	plain, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := v1.SHA256(plain); err != nil || got != l.diffID {
		t.Errorf("tar is %s (%v), want %s", got, err, l.diffID)
	}
}

func TestProxyCounts(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 100_000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }))
	defer server.Close()
	for _, rate := range []int64{0, 1e9} {
		p := &proxy{upstream: strings.TrimPrefix(server.URL, "http://"), rate: rate}
		if err := p.listen(); err != nil {
			t.Fatal(err)
		}
		defer p.close()
		client := &http.Client{Transport: &http.Transport{}}
		for range 2 {
			resp, err := client.Get("http://" + p.address())
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("got %d bytes, %v", len(got), err)
			}
			client.CloseIdleConnections()
			n, err := p.count(t.Context())
			if heads := n - int64(len(body)); err != nil || heads < 100 || heads > 1000 {
				t.Errorf("counted %d bytes (%v) for a body of %d", n, err, len(body))
			}
		}
	}
}

func TestCheckSeesWhatIsNotThere(t *testing.T) {
	set := &imageSet{}
	dir := t.TempDir()
	for _, text := range []string{"one", "two"} {
		digest, _, err := v1.SHA256(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		set.blobs = append(set.blobs, blob{digest: digest})
		if err := os.WriteFile(filepath.Join(dir, digest.Hex), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.check(dir); err != nil {
		t.Fatal(err)
	}
	two := filepath.Join(dir, set.blobs[1].digest.Hex)
	if err := os.Truncate(two, 2); err != nil {
		t.Fatal(err)
	}
	if err := set.check(dir); err == nil || !strings.Contains(err.Error(), "corrupt") {
		t.Errorf("a cut blob gives %v", err)
	}
	if err := os.Remove(two); err != nil {
		t.Fatal(err)
	}
	if err := set.check(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing blob gives %v", err)
	}
}

func TestMeasureSeesTheLargestChild(t *testing.T) {
	if err := forgetPeak(); err != nil {
		t.Fatal(err)
	}
	u, err := measure(t.Context(), exec.Command("sh", "-c", "head -c 150000000 /dev/zero | tail -c 100000000 >/dev/null; true"))
	if err != nil {
		t.Fatal(err)
	}
	if u.memory < 100e6 || u.memory > 300e6 {
		t.Errorf("peak of memory is %d bytes", u.memory)
	}
	if _, err := measure(t.Context(), exec.Command("sh", "-c", "echo why >&2; exit 3")); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("a failure gives %v", err)
	}
}
