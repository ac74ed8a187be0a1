package bundle_test

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"atoll/bundle"
	"atoll/bundle/bundletest"
)

// TestBombs has documents of a bundle that are small for what they become.
func TestBombs(t *testing.T) {
	keys := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "k%d: x\n", i)
		}
		return b.String()
	}
	for _, tc := range []struct {
		name, data, want string
		read             func(t *testing.T, data string) func() error
	}{
		{"phases", `{"phases":[` + strings.Repeat("{},", 20<<20) + `{}]}`, "objects", plan},
		{"keys of secrets", `{"secrets":[{"keys":[` + strings.Repeat("{},", 20<<20) + `{}]}]}`, "objects", plan},
		{"deep", `{"phases":` + strings.Repeat("[", 60<<20), "exceeded max depth", plan},
		{"too large", strings.Repeat(" ", 65<<20), "more than 67108864", plan},
		{"keys of a lock", keys(80_000), "more than 32 fields", lock},
		{"keys of a definition", keys(80_000), "keys in a mapping", definition},
	} {
		t.Run(tc.name, func(t *testing.T) {
			read := tc.read(t, tc.data)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			err := read()
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %.200v, want %q", err, tc.want)
			}
			mib := (after.TotalAlloc - before.TotalAlloc) >> 20
			t.Logf("allocates %d MiB in %v", mib, took)
			if mib > 512 {
				t.Errorf("allocates %d MiB", mib)
			}
		})
	}
}

// plan packs a bundle with a plan.json of its own, and returns what reads that.
func plan(t *testing.T, data string) func() error {
	f := bundletest.New(t)
	artifacts := f.Artifacts(t)
	artifacts[1].Files[0] = bundle.File{Name: "plan.json", MediaType: "application/json", Digest: f.Put(t, []byte(data)), Size: int64(len(data))}
	path := filepath.Join(t.TempDir(), "bundle.tar")
	if err := bundle.Pack(t.Context(), path, f.Store, f.Lock, artifacts, nil); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return func() error { _, err := b.Plan(); return err }
}

func lock(_ *testing.T, data string) func() error {
	return func() error { _, err := bundle.ParseLock("a.lock", []byte(data)); return err }
}

func definition(_ *testing.T, data string) func() error {
	return func() error { _, err := bundle.ParseDefinition("a.yaml", []byte(data)); return err }
}
