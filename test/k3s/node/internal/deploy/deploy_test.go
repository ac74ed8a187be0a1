package deploy

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// recorder is a cluster that remembers what was asked and refuses what it is told to refuse.
type recorder struct {
	applied, removed []string
	refuse           string
}

func (r *recorder) apply(_ context.Context, obj *unstructured.Unstructured) error {
	if obj.GetName() == r.refuse {
		return errors.New("refused")
	}
	r.applied = append(r.applied, obj.GetKind()+"/"+obj.GetName())
	return nil
}

func (r *recorder) remove(_ context.Context, obj *unstructured.Unstructured) error {
	r.removed = append(r.removed, obj.GetKind()+"/"+obj.GetName())
	return nil
}

func TestPass(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("b.yaml", "---\nkind: A\nmetadata: {name: b1}\n---\n# nothing\n---\nkind: A\nmetadata: {name: b2}\n")
	put("a/z.json", `{"kind":"List","apiVersion":"v1","items":[{"kind":"A","apiVersion":"v1","metadata":{"name":"z"}}]}`)
	put("off.yaml", "kind: A\nmetadata: {name: off}\n")
	put("off.yaml.skip", "")
	put(".hidden.yaml", "kind: A\nmetadata: {name: hidden}\n")
	put("notes.txt", "not a manifest")
	r := &recorder{refuse: "b2"}
	c := &Controller{dir: dir, cluster: r, log: slog.New(slog.DiscardHandler), done: map[string][sha256.Size]byte{}}
	for i, want := range [][]string{{"A/z", "A/b1"}, {"A/b1", "A/b2"}, nil} {
		r.applied = nil
		c.pass(context.Background())
		if !reflect.DeepEqual(r.applied, want) {
			t.Errorf("pass %d: got %v, want %v", i, r.applied, want)
		}
		r.refuse = ""
	}
	put("b.yaml", "kind: A\nmetadata: {name: new}\n")
	r.applied = nil
	c.pass(context.Background())
	if want := []string{"A/new"}; !reflect.DeepEqual(r.applied, want) {
		t.Errorf("after a change: got %v, want %v", r.applied, want)
	}
}
