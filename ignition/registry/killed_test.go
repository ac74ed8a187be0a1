package registry

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const childVar = "ATOLL_REGISTRY_TEST_CHILD"

// TestChild is what other tests run in a process that is killed.
func TestChild(t *testing.T) {
	dir, ok := os.LookupEnv(childVar)
	if !ok {
		t.Skip("run by other tests")
	}
	if os.Getenv(childVar+"_COLLECT") == "" {
		w := newWorld(t, func(o *Options) { o.Dir = dir })
		fmt.Println("serving", w.host)
		select {}
	}
	for {
		if _, err := Collect(t.Context(), dir, CollectOptions{Age: time.Nanosecond, Log: slogTo(os.Stdout)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKilledWhilePushing(t *testing.T) {
	dir := t.TempDir()
	img, err := random.Image(200<<10, 4)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 4 {
		cmd, out := child(t, dir)
		line := make([]byte, 100)
		n, err := out.Read(line)
		if err != nil {
			t.Fatal(err)
		}
		host := strings.TrimSpace(strings.TrimPrefix(string(line[:n]), "serving "))
		w := &world{t: t, host: host}
		// It is killed after some requests: each round a later one.
		opts := append(from(podA)[1:], remote.WithTransport(&killer{cmd: cmd, after: 3 + round*4}))
		if err := remote.Write(w.ref("a/x:1"), img, opts...); err == nil {
			t.Log("the push was done before")
		}
		cmd.Process.Kill()
		cmd.Wait() // it was killed
	}
	w := newWorld(t, func(o *Options) { o.Dir = dir })
	w.push("a/x:1", img)
	w.whole("a/x:1")
	w.age(2 * Age)
	if c := w.collect(CollectOptions{}); c.Manifests != 0 || c.Uploads == 0 {
		t.Errorf("a collection takes %+v", c)
	}
	w.whole("a/x:1")
}

// A collection that ends between two deletions leaves whole what it does not take, and the
// next one takes the rest.
func TestKilledWhileCollecting(t *testing.T) {
	w := newWorld(t, nil)
	kept := image(t)
	w.push("a/kept:1", kept)
	for i := range 8 {
		img, err := mutate.AppendLayers(kept, must(random.Layer(500, "application/vnd.docker.image.rootfs.diff.tar.gzip")))
		if err != nil {
			t.Fatal(err)
		}
		w.push(fmt.Sprintf("a/x%d:1", i), img)
		if err := remote.Delete(w.ref(fmt.Sprintf("a/x%d:1", i)), from(podA)...); err != nil {
			t.Fatal(err)
		}
	}
	w.age(time.Hour)
	for round := range 4 {
		cmd, out := child(t, w.dir, childVar+"_COLLECT=1")
		// It is killed after some deletions.
		buf := make([]byte, 1)
		for lines := 0; lines <= round*2; {
			if _, err := out.Read(buf); err != nil {
				break
			}
			if buf[0] == '\n' {
				lines++
			}
		}
		cmd.Process.Kill()
		cmd.Wait() // it was killed
		w.whole("a/kept:1")
	}
	w.collect(CollectOptions{Age: time.Nanosecond})
	if c := w.collect(CollectOptions{Age: time.Nanosecond}); c != (Collected{}) {
		t.Errorf("%+v was left", c)
	}
	w.whole("a/kept:1")
	w.push("a/x0:1", image(t))
	w.whole("a/x0:1")
}

func child(t *testing.T, dir string, env ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v=false")
	cmd.Env = append(append(os.Environ(), childVar+"="+dir), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd, out
}

// killer is a pod's connection to a server that is killed after some requests.
type killer struct {
	cmd   *exec.Cmd
	mu    sync.Mutex
	after int
}

func (k *killer) RoundTrip(req *http.Request) (*http.Response, error) {
	k.mu.Lock()
	if k.after--; k.after == 0 {
		k.cmd.Process.Kill()
	}
	k.mu.Unlock()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(podA)}}
	return (&http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}).RoundTrip(req)
}
