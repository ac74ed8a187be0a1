package images

import (
	"context"
	"strings"
	"testing"

	"atoll/bundle"
)

// TestFirstSight: what no hash of the stack vouches for is marked in the lock, also where an
// older lock did not say so, and no lock that leaves the mark out is taken.
func TestFirstSight(t *testing.T) {
	u := newUpstream(t)
	tree := lockedTree(t, u)
	for _, tc := range []struct {
		name string
		src  bundle.Source
		want bool
	}{
		{"a tag", bundle.Source{Name: "a", Repository: u.url + "/k/manifests", Ref: "v1"}, true},
		{"a commit", bundle.Source{Name: "a", Repository: u.url + "/k/manifests", Ref: "v1", Commit: "c0ffee"}, true},
		{"a tree", bundle.Source{Name: "a", Repository: u.url + "/k/manifests", Ref: "v1", Commit: "c0ffee", Tree: tree}, false},
		{"a file", bundle.Source{Name: "a", URL: u.url + "/k/api/releases/api.yaml"}, true},
		{"a checksum", bundle.Source{Name: "a", URL: u.url + "/k/api/releases/api.yaml", SHA256: bundle.DigestOf([]byte("kind: API\n")).Hex}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, s := definition(t, ""), newStore(t)
			fetch := func(before []bundle.LockedSource) bundle.LockedSource {
				locked, err := FetchSources(context.Background(), d, []bundle.Source{tc.src}, before, s, nil)
				if err != nil {
					t.Fatal(err)
				}
				return locked[0]
			}
			l := fetch(nil)
			if l.FirstSight != tc.want {
				t.Errorf("firstSight is %v, want %v", l.FirstSight, tc.want)
			}
			l.FirstSight = !tc.want
			if l = fetch([]bundle.LockedSource{l}); l.FirstSight != tc.want {
				t.Errorf("from another lock: firstSight is %v, want %v", l.FirstSight, tc.want)
			}
			lock := bundle.Lock{Platform: d.Platform, Definition: d.Checksum(), Sources: []bundle.LockedSource{l}}
			if err := lock.Check(d, []bundle.Source{tc.src}); err != nil {
				t.Error(err)
			}
			lock.Sources[0].FirstSight = !tc.want
			if err := lock.Check(d, []bundle.Source{tc.src}); err == nil || !strings.Contains(err.Error(), "stale") {
				t.Errorf("a lock with the wrong mark: %v", err)
			}
		})
	}
}

// lockedTree is the hash of the tree that upstream serves.
func lockedTree(t *testing.T, u *upstream) string {
	t.Helper()
	src := bundle.Source{Name: "a", Repository: u.url + "/k/manifests", Ref: "v1"}
	locked, err := FetchSources(context.Background(), definition(t, ""), []bundle.Source{src}, nil, newStore(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return locked[0].Tree
}
