// Package deploy applies the manifests under /var/lib/rancher/k3s/server/manifests, again whenever a file changes,
// as k3s's deploy controller does. It applies by server-side apply and keeps no Addon objects.
package deploy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// Interval is the time between two looks at the folder.
const Interval = 15 * time.Second

// applier puts one object into the cluster, or takes it away.
type applier interface {
	apply(ctx context.Context, obj *unstructured.Unstructured) error
	remove(ctx context.Context, obj *unstructured.Unstructured) error
}

// Controller applies a folder of manifests.
type Controller struct {
	dir     string
	cluster applier
	log     *slog.Logger
	done    map[string][sha256.Size]byte // path → content that was applied without an error
}

// Run looks at the folder until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		c.pass(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pass applies every file that is new, changed, or failed before.
func (c *Controller) pass(ctx context.Context) {
	paths, err := manifests(c.dir)
	if err != nil {
		c.log.Error("listing manifests", "error", err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			c.log.Error("reading manifest", "file", path, "error", err)
			continue
		}
		sum := sha256.Sum256(data)
		if old, ok := c.done[path]; ok && old == sum {
			continue
		}
		if err := c.applyFile(ctx, data); err != nil {
			if ctx.Err() == nil {
				c.log.Warn("manifest not applied, trying again", "file", path, "error", err)
			}
			continue
		}
		c.log.Info("applied manifest", "file", path)
		c.done[path] = sum
	}
}

func (c *Controller) applyFile(ctx context.Context, data []byte) error {
	objs, err := decode(data)
	if err != nil {
		return err
	}
	var errs []error
	for _, obj := range objs {
		errs = append(errs, c.cluster.apply(ctx, obj))
	}
	return errors.Join(errs...)
}

// Remove deletes the objects of the manifest at path, then the file: what k3s does with a disabled add-on.
func (c *Controller) Remove(ctx context.Context, path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing add-on: %w", err)
	}
	objs, err := decode(data)
	if err != nil {
		return fmt.Errorf("removing add-on %s: %w", path, err)
	}
	slices.Reverse(objs)
	for _, obj := range objs {
		if err := c.cluster.remove(ctx, obj); err != nil {
			return fmt.Errorf("removing add-on %s: %w", path, err)
		}
	}
	return os.Remove(path)
}

// manifests lists the files to apply, sorted by path. A file x.skip hides x; names that start with a dot are hidden.
func manifests(dir string) ([]string, error) {
	var out []string
	skip := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") && path != dir {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if name, ok := strings.CutSuffix(path, ".skip"); ok {
			skip[name] = true
		}
		switch filepath.Ext(path) {
		case ".yaml", ".yml", ".json":
			if !d.IsDir() {
				out = append(out, path)
			}
		}
		return nil
	})
	out = slices.DeleteFunc(out, func(p string) bool { return skip[p] })
	slices.Sort(out)
	if err != nil {
		return out, fmt.Errorf("walking %s: %w", dir, err)
	}
	return out, nil
}

// decode splits a file into objects; a List becomes its items.
func decode(data []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for {
		obj := new(unstructured.Unstructured)
		err := dec.Decode(&obj.Object)
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("decoding: %w", err)
		}
		if len(obj.Object) == 0 {
			continue
		}
		if !obj.IsList() {
			out = append(out, obj)
			continue
		}
		err = obj.EachListItem(func(o runtime.Object) error {
			out = append(out, o.(*unstructured.Unstructured))
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("decoding a list: %w", err)
		}
	}
}
