package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// environment of the go command: what a user has set for other builds does not reach it.
func environment(cgo bool) []string {
	enabled := "0"
	if cgo {
		enabled = "1"
	}
	return append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off", "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED="+enabled)
}

func goCommand(ctx context.Context, dir string, cgo bool, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, environment(cgo)
	return cmd
}

// output runs the go command in a module and returns what it prints.
func output(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := goCommand(ctx, dir, false, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("running go %s in %s: %w\n%s", args[0], dir, err, tail(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// tail is the end of a program's words, for an error.
func tail(s string) string { return s[max(0, len(s)-4096):] }

// key tells one program's binary from another: it changes with everything that changes the
// binary.
func (p program) key(ctx context.Context) (string, error) {
	dir := filepath.Join(modulesDir, p.module)
	version, err := output(ctx, dir, "env", "GOVERSION")
	if err != nil {
		return "", err
	}
	return p.keyFrom(dir, version)
}

func (p program) keyFrom(dir, goVersion string) (string, error) {
	parts := []string{"1", goVersion, p.pkg, p.tags, p.ldflags(), fmt.Sprint(p.cgo)}
	for _, name := range slices.Sorted(maps.Keys(p.links)) {
		parts = append(parts, name, p.links[name])
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("reading the module of %s: %w", p.name, err)
		}
		parts = append(parts, string(data))
	}
	return keyOf(parts), nil
}

// keyOf is a hash of a list.
func keyOf(parts []string) string {
	data, err := json.Marshal(parts)
	if err != nil {
		panic(err) // strings can always be encoded
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// ldflags strip, and link statically what a C compiler has a part in.
func (p program) ldflags() string {
	if p.cgo {
		return "-s -w -linkmode external -extldflags -static"
	}
	return "-s -w"
}

// compile makes a program's binary if it is not there, bin/NAME in the builder's folder, and
// returns its key.
func (b *builder) compile(ctx context.Context, p program) (string, error) {
	key, err := p.key(ctx)
	if err != nil {
		return "", err
	}
	if b.has(p.name, key) {
		return key, nil
	}
	temp, err := os.MkdirTemp(b.dir, "compile-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	dir := filepath.Join(modulesDir, p.module)
	out := filepath.Join(temp, p.name)
	args := []string{"build", "-v", "-trimpath", "-tags", p.tags, "-ldflags", p.ldflags(), "-o", out}
	if len(p.links) > 0 {
		more, err := p.restoreLinks(ctx, temp)
		if err != nil {
			return "", err
		}
		args = append(args, more...)
	}
	start := time.Now()
	deps, err := output(ctx, dir, "list", "-deps", "-tags", p.tags, p.pkg)
	if err != nil {
		return "", err
	}
	progress := &progress{name: b.prefix + p.name, of: strings.Count(deps, "\n") + 1, start: start}
	if err := progress.run(goCommand(ctx, dir, p.cgo, append(args, p.pkg)...)); err != nil {
		return "", fmt.Errorf("compiling %s: %w", p.name, err)
	}
	f, err := os.Open(out)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return key, b.keep(p.name, key, f)
}

// restoreLinks returns arguments for go build that bring back symbolic links of the sources
// of a program's module: module archives drop them. The go command replaces no file in its
// module cache, so it sees the module by another path, in the folder temp.
func (p program) restoreLinks(ctx context.Context, temp string) ([]string, error) {
	cached, err := p.sources(ctx)
	if err != nil {
		return nil, err
	}
	source := filepath.Join(temp, "source")
	if err := os.Symlink(cached, source); err != nil {
		return nil, err
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(modulesDir, p.module, name))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(temp, name), data, 0o644); err != nil {
			return nil, err
		}
	}
	path, _, err := p.upstream(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := output(ctx, temp, "mod", "edit", "-replace", path+"="+source); err != nil {
		return nil, err
	}
	replace := map[string]string{}
	for link, target := range p.links {
		replace[filepath.Join(source, link)] = filepath.Join(cached, filepath.Dir(link), target)
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	overlay := filepath.Join(temp, "overlay.json")
	return []string{"-modfile", filepath.Join(temp, "go.mod"), "-overlay", overlay}, os.WriteFile(overlay, data, 0o644)
}

// sources is the folder of the sources of a program's module.
func (p program) sources(ctx context.Context) (string, error) {
	path, version, err := p.upstream(ctx)
	if err != nil {
		return "", err
	}
	out, err := output(ctx, filepath.Join(modulesDir, p.module), "mod", "download", "-json", path+"@"+version)
	if err != nil {
		return "", err
	}
	var m struct{ Dir string }
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		return "", fmt.Errorf("reading what go mod download says of %s: %w", path, err)
	}
	return m.Dir, nil
}

// progress tells how far a build is: one line in the end, and one every half minute until
// then.
type progress struct {
	name  string
	of    int // packages
	start time.Time
	built atomic.Int64
}

func (p *progress) run(cmd *exec.Cmd) error {
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	words := make(chan string, 1)
	go func() { words <- p.read(r) }()
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	ended := make(chan error, 1)
	go func() {
		err := cmd.Run()
		w.Close()
		ended <- err
	}()
	for {
		select {
		case <-tick.C:
			p.tell("")
		case err := <-ended:
			text := <-words
			if err != nil {
				return fmt.Errorf("%w\n%s", err, tail(text))
			}
			used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			p.tell(fmt.Sprintf(" (%.0fs of CPU)", used.Seconds()))
			return nil
		}
	}
}

// read counts the packages that go build -v names, and returns all else that it says.
func (p *progress) read(r io.Reader) string {
	var words strings.Builder
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		switch {
		case strings.HasPrefix(line, "go: downloading "), line == "":
		case strings.ContainsAny(strings.TrimSpace(line), " :"):
			words.WriteString(line)
		default:
			p.built.Add(1)
		}
		if err != nil {
			return words.String()
		}
	}
}

func (p *progress) tell(more string) {
	fmt.Fprintf(os.Stderr, "%s: %d of %d packages built, %.0fs%s\n", p.name, p.built.Load(), p.of, time.Since(p.start).Seconds(), more)
}
