package images

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"atoll/test/regtest"
)

// Manifests come before blobs, and the largest of those first.
func TestLargestFirst(t *testing.T) {
	r := regtest.New(t)
	var refs []string
	sizes := map[string]int64{}
	for i, n := range []int{900, 70_000, 5000} {
		ref := fmt.Sprintf("lab/image%d:1", i)
		d := r.AddImage(regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(uint64(i), n), regtest.Bytes(uint64(10+i), 2*n)}}, ref)
		refs = append(refs, "lab.test/"+ref)
		n, err := parseNode(r.Content(d.Digest))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range n.blobs() {
			sizes[b.Digest.String()] = b.Size
		}
	}
	o := caseOptions(r)
	locked := mustLock(t, o, refs...)
	r.Forget()
	o.Jobs = 1
	if err := mirrorCase(t, o, newStore(t), locked); err != nil {
		t.Fatal(err)
	}
	var order []int64
	for _, q := range r.Requests() {
		switch q.Kind {
		case regtest.Blob:
			order = append(order, sizes[q.Name])
		case regtest.Manifest:
			if q.Method == http.MethodGet && len(order) > 0 {
				t.Error("a manifest is asked for after a blob")
			}
		}
	}
	if len(order) != len(sizes) || !slices.IsSortedFunc(order, func(a, b int64) int { return int(b - a) }) {
		t.Errorf("blobs of %v bytes come in the order %v", sizes, order)
	}
}

// A host that makes us wait keeps nobody from the others.
func TestHostsDoNotWaitForEachOther(t *testing.T) {
	slow, quick := regtest.New(t), regtest.New(t)
	var refs []string
	for i := range 12 {
		image := regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(uint64(i), 100_000)}} // the larger ones, so the first
		slow.AddImage(image, fmt.Sprintf("lab/slow%d:1", i))
		image = regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(uint64(100+i), 500)}}
		quick.AddImage(image, fmt.Sprintf("lab/quick%d:1", i))
		refs = append(refs, fmt.Sprintf("lab.test/lab/slow%d:1", i), fmt.Sprintf("quick.test/lab/quick%d:1", i))
	}
	o := caseOptions(slow)
	o.Mirrors["quick.test"] = quick.URL()
	o.Jobs, o.idle = 2, time.Minute
	locked := mustLock(t, o, refs...)
	for _, kind := range []regtest.Kind{regtest.Manifest, regtest.Blob} {
		t.Run(string(kind), func(t *testing.T) {
			quick.Forget()
			slow.Break(regtest.On(func(regtest.Request, *regtest.Answer) {
				for end := time.Now().Add(20 * time.Second); quick.Count(kind) < 12; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Error("the quick host is not asked while the slow one makes us wait")
						return
					}
				}
			}, kind))
			if err := mirrorCase(t, o, newStore(t), locked); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Connections are used again, and tokens for all blobs of a repository.
func TestConnectionsAreReused(t *testing.T) {
	r := regtest.New(t)
	r.Login(&regtest.Auth{})
	var refs []string
	for i := range 20 {
		ref := fmt.Sprintf("lab/image%d:1", i)
		image := regtest.Image{Arch: "amd64"}
		for j := range 5 {
			image.Layers = append(image.Layers, regtest.Bytes(uint64(5*i+j), 2000))
		}
		r.AddImage(image, ref)
		refs = append(refs, "lab.test/"+ref)
	}
	var accepted atomic.Int64
	front := httptest.NewUnstartedServer(r)
	front.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			accepted.Add(1)
		}
	}
	front.Start()
	defer front.Close()
	o := caseOptions(r)
	locked := mustLock(t, o, refs...)
	r.Forget()
	o.Mirrors["lab.test"] = front.URL
	if err := mirrorCase(t, o, newStore(t), locked); err != nil {
		t.Fatal(err)
	}
	// While a connection is made for a request, that may get another one that has become free.
	if n := accepted.Load(); n > 2*defaultJobs {
		t.Errorf("%d connections, want about %d", n, defaultJobs)
	}
	if n := r.Count(regtest.Token); n > len(refs) {
		t.Errorf("%d logins, want one for each of %d repositories", n, len(refs))
	}
}
