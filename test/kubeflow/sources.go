package kubeflow

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Sources are upstream's manifests on disk: a folder or file for each of the stack's sources.
type Sources map[string]string

// modified are the sources whose trees may differ from upstream's.
var modified = []string{"kubeflow-manifests", "argo-workflows"}

// unpack copies upstream's manifests to a folder, whose former content it removes: from a
// folder that holds them, or from a tar archive of one.
func unpack(ctx context.Context, from, dir string) (Sources, error) {
	info, err := os.Stat(from)
	if err != nil {
		return nil, errNotHere(from, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if info.IsDir() {
		err = os.CopyFS(dir, os.DirFS(from))
	} else {
		_, err = output(ctx, "tar", "-C", dir, "-xf", from)
	}
	if err != nil {
		return nil, fmt.Errorf("unpacking %s: %w", from, err)
	}
	s := Sources{}
	for name, places := range map[string][]string{
		"kubeflow-manifests": {"kubeflow-26.03", "manifests-26.03"},
		"argo-workflows":     {"argo-workflows-3.7.3"},
		"jobset":             {"jobset-0.10.1/manifests.yaml"},
	} {
		i := slices.IndexFunc(places, func(p string) bool {
			_, err := os.Stat(filepath.Join(dir, p))
			return err == nil
		})
		if i < 0 {
			return nil, errNotHere(filepath.Join(from, places[0]), fs.ErrNotExist)
		}
		s[name] = filepath.Join(dir, places[i])
	}
	return s, nil
}

// Flags tell atoll where the sources are.
func (s Sources) Flags() []string {
	flags := []string{"--allow-modified", strings.Join(modified, ",")}
	for _, name := range slices.Sorted(maps.Keys(s)) {
		flags = append(flags, "--source", name+"="+s[name])
	}
	return flags
}

// Repin replaces the digests that manifests pin images by with those of the images that
// labimages has under these names, with those of a folder of programs, and returns of how many.
func Repin(ctx context.Context, labimages, programs string, s Sources, names []string) (int, error) {
	pinned := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.Contains(n, "@") })
	if len(pinned) == 0 {
		return 0, nil
	}
	list := s["kubeflow-manifests"] + ".pinned"
	if err := writeLines(list, pinned); err != nil {
		return 0, err
	}
	out, err := output(ctx, labimages, "digests", "-stand-ins", list, "-programs", programs)
	if err != nil {
		return 0, err
	}
	var pairs [][2][]byte
	for line := range strings.Lines(string(out)) {
		digest, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if slices.Contains(pinned, name) {
			_, old, _ := strings.Cut(name, "@")
			pairs = append(pairs, [2][]byte{[]byte(old), []byte(digest)})
		}
	}
	return len(pairs), replaceAll(s["kubeflow-manifests"], pairs)
}

// replaceAll replaces texts in every file of a folder.
func replaceAll(dir string, pairs [][2][]byte) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		changed := data
		for _, p := range pairs {
			changed = bytes.ReplaceAll(changed, p[0], p[1])
		}
		if bytes.Equal(changed, data) {
			return nil
		}
		return os.WriteFile(path, changed, 0o644)
	})
}
