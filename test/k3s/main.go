// K3s builds the lab k3s release: a folder with the shape of a k3s release, for places where Rancher's own cannot
// be reached. Usage, in the repository's root: go run ./test/k3s OUT
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"atoll/bundle"
)

const (
	version    = "v1.34.4+lab1"
	kubernetes = "v1.34.4"
	magic      = "ATOLLK3S" // ends a k3s binary with a payload; see node/internal/payload
)

// part is one program of the release.
type part struct {
	name string   // of the file
	dir  string   // of its module, below test/k3s
	pkg  string   // its package
	cgo  bool     // runc alone
	args []string // to go build
}

var parts = []part{
	{name: "node", dir: "node", pkg: ".", args: []string{"-ldflags", "-s -w" + stamps()}},
	{name: "containerd-shim-runc-v2", dir: "node", pkg: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
	{name: "runc", dir: "parts/runc", pkg: "github.com/opencontainers/runc", cgo: true,
		args: []string{"-tags", "seccomp netgo osusergo", "-ldflags", "-s -w -linkmode external -extldflags -static"}},
	{name: "bridge", dir: "parts/cni", pkg: "github.com/containernetworking/plugins/plugins/main/bridge"},
	{name: "loopback", dir: "parts/cni", pkg: "github.com/containernetworking/plugins/plugins/main/loopback"},
	{name: "host-local", dir: "parts/cni", pkg: "github.com/containernetworking/plugins/plugins/ipam/host-local"},
	{name: "portmap", dir: "parts/cni", pkg: "github.com/containernetworking/plugins/plugins/meta/portmap"},
	{name: "crictl", dir: "parts/crictl", pkg: "sigs.k8s.io/cri-tools/cmd/crictl"},
	{name: "coredns", dir: "parts/coredns", pkg: "github.com/coredns/coredns"},
	{name: "local-path-provisioner", dir: "parts/local-path-provisioner", pkg: "github.com/rancher/local-path-provisioner"},
	{name: "metrics-server", dir: "parts/metrics-server", pkg: "sigs.k8s.io/metrics-server/cmd/metrics-server"},
	{name: "pause", dir: "pause", pkg: "."},
}

// helpers are the parts that the k3s binary carries.
var helpers = []string{"containerd-shim-runc-v2", "runc", "bridge", "loopback", "host-local", "portmap", "crictl"}

func stamps() string {
	var s strings.Builder
	for key, value := range map[string]string{"gitVersion": version, "gitMajor": "1", "gitMinor": "34", "gitTreeState": "clean"} {
		fmt.Fprintf(&s, " -X k8s.io/component-base/version.%s=%s", key, value)
	}
	return s.String()
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./test/k3s OUT")
		os.Exit(2)
	}
	if err := build(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "k3s:", err)
		os.Exit(1)
	}
}

func build(out string) error {
	work, err := filepath.Abs(out + ".work")
	if err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(work, 0o755), os.MkdirAll(out, 0o755)); err != nil {
		return err
	}
	start := time.Now()
	for i, p := range parts {
		fmt.Fprintf(os.Stderr, "lab k3s: %d of %d: %s (%s)\n", i+1, len(parts)+2, p.name, time.Since(start).Round(time.Second))
		if err := p.build(work); err != nil {
			return err
		}
	}
	stamp, err := stampOf(work)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(filepath.Join(work, "stamp")); err == nil && string(old) == stamp && isWhole(out) {
		fmt.Fprintln(os.Stderr, "lab k3s: up to date")
		return nil
	}
	fmt.Fprintf(os.Stderr, "lab k3s: %d of %d: images\n", len(parts)+1, len(parts)+2)
	names, err := writeImages(work, filepath.Join(out, "k3s-airgap-images-amd64.tar.zst"))
	if err != nil {
		return err
	}
	list := strings.Join(names, "\n") + "\n"
	if err := writeText(filepath.Join(out, "k3s-images.txt"), list); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "lab k3s: %d of %d: k3s\n", len(parts)+2, len(parts)+2)
	if err := writeBinary(work, filepath.Join(out, "k3s")); err != nil {
		return err
	}
	if err := writeSums(out); err != nil {
		return err
	}
	return writeText(filepath.Join(work, "stamp"), stamp)
}

// stampOf tells what a release is made from: the programs, busybox and this builder.
func stampOf(work string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	files := []string{self, busybox}
	for _, p := range parts {
		files = append(files, filepath.Join(work, p.name))
	}
	return sums(files)
}

// releaseFiles are those that a release's checksums name.
var releaseFiles = []string{"k3s", "k3s-airgap-images-amd64.tar.zst", "k3s-images.txt"}

const sumsFile = "sha256sum-amd64.txt"

// isWhole says whether the release is as its checksums say.
func isWhole(out string) bool {
	want, err := os.ReadFile(filepath.Join(out, sumsFile))
	if err != nil {
		return false
	}
	got, err := sums(releasePaths(out))
	return err == nil && got == string(want)
}

func releasePaths(out string) []string {
	paths := make([]string, 0, len(releaseFiles))
	for _, name := range releaseFiles {
		paths = append(paths, filepath.Join(out, name))
	}
	return paths
}

func (p part) build(work string) error {
	args := []string{"build", "-trimpath", "-o", filepath.Join(work, p.name)}
	if p.args == nil {
		p.args = []string{"-ldflags", "-s -w"}
	}
	cmd := exec.Command("go", append(append(args, p.args...), p.pkg)...)
	cmd.Dir = filepath.Join("test/k3s", p.dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if p.cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building %s: %w", p.name, err)
	}
	return nil
}

// writeBinary appends the helpers to the node's program.
func writeBinary(work, out string) error {
	var payload bytes.Buffer
	z, err := zstd.NewWriter(&payload, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	tw := tar.NewWriter(z)
	for _, name := range helpers {
		data, err := os.ReadFile(filepath.Join(work, name))
		if err != nil {
			return err
		}
		if err := tw.WriteHeader(&tar.Header{Name: "bin/" + name, Mode: 0o755, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := tw.Write(data); err != nil {
			return err
		}
	}
	if err := errors.Join(tw.Close(), z.Close()); err != nil {
		return err
	}
	sum := sha256.Sum256(payload.Bytes())
	node, err := os.Open(filepath.Join(work, "node"))
	if err != nil {
		return err
	}
	defer node.Close()
	return bundle.WriteFile(out, func(f *os.File) error {
		if _, err := io.Copy(f, node); err != nil {
			return err
		}
		tail := binary.BigEndian.AppendUint64(nil, uint64(payload.Len()))
		tail = append(append(tail, sum[:]...), magic...)
		for _, b := range [][]byte{payload.Bytes(), tail} {
			if _, err := f.Write(b); err != nil {
				return err
			}
		}
		return f.Chmod(0o755)
	})
}

func writeText(path, text string) error {
	return bundle.WriteFile(path, func(f *os.File) error {
		_, err := f.WriteString(text)
		return err
	})
}

func writeSums(out string) error {
	list, err := sums(releasePaths(out))
	if err != nil {
		return err
	}
	return writeText(filepath.Join(out, sumsFile), list)
}

// sums lists files with their checksums as sha256sum does.
func sums(paths []string) (string, error) {
	var list strings.Builder
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return "", err
		}
		fmt.Fprintf(&list, "%s  %s\n", hex.EncodeToString(h.Sum(nil)), filepath.Base(path))
	}
	return list.String(), nil
}
