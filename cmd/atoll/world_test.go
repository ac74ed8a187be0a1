package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"

	"atoll/bundle"
	"atoll/bundle/bundletest"
	"atoll/images/disk"
)

// world is what a script's commands meet: a registry with the lab's images at
// $REGISTRY, a k3s release of small files at $K3S, and a Debian archive of small files
// at $ARCHIVE.
type world struct {
	registry http.Handler // the images, shared by all scripts
	node     string       // program for the node, likewise: $NODE
	lab      lab          // the script's own

	mu   sync.Mutex
	gone string        // digest that is answered with 404
	busy bool          // it is manifests that are held, and then refused: come again later
	hold chan struct{} // if set, a blob stops half-way until it is closed
	held chan struct{} // closed when that has happened
}

// newWorld makes what the scripts share.
func newWorld(t *testing.T) *world {
	t.Helper()
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(images)
	defer server.Close()
	w := &world{registry: images, node: filepath.Join(t.TempDir(), "node")}
	for _, args := range [][]string{
		{"run", "atoll/test/labimages", "push", server.URL},
		{"build", "-o", w.node, "atoll/test/labimages/launcher"}, // any static program will do
	} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return w
}

type worldKey struct{}

func (w *world) setup(e *testscript.Env) error {
	server := httptest.NewServer(w)
	e.Defer(server.Close)
	e.Defer(w.release)
	e.Values[worldKey{}] = w
	e.Setenv("NODE", w.node)
	w.lab = newLab(e)
	mirrors := make([]string, 0, 4)
	for _, host := range []string{"docker.io", "ghcr.io", "quay.io"} {
		mirrors = append(mirrors, host+"="+server.URL+"/"+host)
	}
	mirrors = append(mirrors, "lab.test="+w.lab.URL())
	e.Setenv("MIRRORS", strings.Join(mirrors, ","))
	atoll, err := exec.LookPath("atoll")
	if err != nil {
		return err
	}
	e.Setenv("ATOLL", atoll)
	e.Setenv("K3S", filepath.Join(e.WorkDir, "k3s"))
	e.Setenv("ARCHIVE", filepath.Join(e.WorkDir, "archive"))
	e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, "cache"))
	if err := writeK3s(e.Getenv("K3S")); err != nil {
		return err
	}
	return writeArchive(e.Getenv("ARCHIVE"))
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	gone, busy, hold, held := w.gone, w.busy, w.hold, w.held
	w.mu.Unlock()
	switch {
	case gone != "" && path.Base(r.URL.Path) == gone:
		http.Error(rw, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, http.StatusNotFound)
	case busy && hold != nil && strings.Contains(r.URL.Path, "/manifests/"):
		w.once(held)
		<-hold
		rw.Header().Set("Retry-After", "1")
		http.Error(rw, `{"errors":[{"code":"TOOMANYREQUESTS"}]}`, http.StatusTooManyRequests)
	case !busy && hold != nil && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/"):
		whole := httptest.NewRecorder()
		w.registry.ServeHTTP(whole, r)
		body := whole.Body.Bytes()
		rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
		rw.WriteHeader(whole.Code)
		rw.Write(body[:len(body)/2])
		rw.(http.Flusher).Flush()
		w.once(held)
		<-hold
	default:
		w.registry.ServeHTTP(rw, r)
	}
}

func (w *world) once(c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-c:
	default:
		close(c)
	}
}

// release lets held blobs go.
func (w *world) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hold != nil {
		close(w.hold)
		w.hold = nil
	}
}

// cmdRegistry is the script command "registry gone DIGEST", "registry hold" or "registry
// busy" (see [world]), "registry held" (wait for it) or "registry release".
func cmdRegistry(ts *testscript.TestScript, _ bool, args []string) {
	w := ts.Value(worldKey{}).(*world)
	switch strings.Join(args[:1], "") {
	case "gone":
		w.mu.Lock()
		w.gone = args[1]
		w.mu.Unlock()
	case "hold", "busy":
		w.mu.Lock()
		w.busy = args[0] == "busy"
		w.hold, w.held = make(chan struct{}), make(chan struct{})
		w.mu.Unlock()
	case "held":
		<-w.held
	case "release":
		w.release()
	default:
		ts.Fatalf("unknown: registry %v", args)
	}
}

// cmdExits is the script command "exits CODE COMMAND [ARG…]".
func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s exits with %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// cmdExpand is the script command "expand FILE…": variables in it get their values.
func cmdExpand(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o644))
	}
}

// cmdFlip is the script command "flip FILE TEXT": a bit changes in the first byte of
// TEXT's last place in FILE; in it \n is a new line. Of a folder it is the file that begins
// so. Like a bit that turns on a disk it leaves the file's times as they are.
func cmdFlip(ts *testscript.TestScript, _ bool, args []string) {
	text := []byte(strings.ReplaceAll(args[1], `\n`, "\n"))
	found := false
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || found {
			return err
		}
		info, ierr := d.Info()
		data, err := os.ReadFile(path)
		err = errors.Join(ierr, err)
		at := bytes.LastIndex(data, text)
		if err != nil || at < 0 || path != ts.MkAbs(args[0]) && !bytes.HasPrefix(data, text) {
			return err
		}
		found = true
		data[at] ^= 1
		return errors.Join(os.WriteFile(path, data, 0o644), os.Chtimes(path, info.ModTime(), info.ModTime()))
	}))
	if !found {
		ts.Fatalf("%s has no %q", args[0], text)
	}
}

// cmdCut is the script command "cut FILE BYTES": that many are cut off its end.
func cmdCut(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), info.Size()-n))
}

// cmdTmpfs is the script command "tmpfs FOLDER KIB": a file system of that size is
// mounted there. It wants the condition [root].
func cmdTmpfs(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[1]+"k"))
	ts.Defer(func() { ts.Check(syscall.Unmount(dir, syscall.MNT_DETACH)) })
}

// cmdNoLeft is the script command "noleft FOLDER…": no file there is a temporary one.
func cmdNoLeft(ts *testscript.TestScript, _ bool, args []string) {
	for _, dir := range args {
		ts.Check(filepath.WalkDir(ts.MkAbs(dir), func(path string, _ os.DirEntry, err error) error {
			if err == nil && strings.Contains(filepath.Base(path), "tmp-") {
				return fmt.Errorf("%s was left", path)
			}
			return err
		}))
	}
}

// writeK3s writes a release whose files are none but in name and checksum.
func writeK3s(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	sums := ""
	for _, name := range []string{"k3s", "k3s-images.txt", "k3s-airgap-images-amd64.tar.zst"} {
		data := []byte(strings.Repeat(name+"\n", 1<<14))
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
		sums += bundle.DigestOf(data).Hex + "  " + name + "\n"
	}
	return os.WriteFile(filepath.Join(dir, "sha256sum-amd64.txt"), []byte(sums), 0o644)
}

// copyrightFile is that of each package of the archive.
const copyrightFile = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: nobody
License: GPL-2+ or Lab
 Whoever has a lab may use it.
`

// writeArchive writes a Debian archive that has every package of a node.
func writeArchive(dir string) error {
	lists, pool := filepath.Join(dir, "dists/bookworm/main/binary-amd64"), filepath.Join(dir, "pool")
	if err := os.MkdirAll(lists, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(pool, 0o755); err != nil {
		return err
	}
	var index bytes.Buffer
	for _, name := range disk.Packages(nil) {
		data := bundletest.Deb(name, "1", bundletest.Copyright(name, copyrightFile))
		file := name + "_1_amd64.deb"
		if err := os.WriteFile(filepath.Join(pool, file), data, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&index, "Package: %s\nArchitecture: amd64\nMaintainer: nobody <n@example.test>\nDescription: lab\nVersion: 1\nFilename: pool/%s\nSize: %d\nSHA256: %s\n\n",
			name, file, len(data), bundle.DigestOf(data).Hex)
	}
	if err := os.WriteFile(filepath.Join(lists, "Packages"), index.Bytes(), 0o644); err != nil {
		return err
	}
	release := fmt.Sprintf("Origin: Lab\nLabel: Lab\nSuite: bookworm\nCodename: bookworm\nDate: Mon, 23 Nov 2026 11:22:37 UTC\nArchitectures: amd64\nComponents: main\nSHA256:\n %s %d main/binary-amd64/Packages\n",
		bundle.DigestOf(index.Bytes()).Hex, index.Len())
	return os.WriteFile(filepath.Join(dir, "dists/bookworm/Release"), []byte(release), 0o644)
}
