package images

import (
	"context"
	"os/exec"
	"reflect"
	"testing"

	"atoll/bundle"
)

func TestBudgetOfPackagesAndSources(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skipf("%v", err)
	}
	ctx := context.Background()
	d := definition(t, "")
	d.Base = bundle.Base{Suite: "bookworm", Sources: []string{
		"deb [trusted=yes] http://deb.test/debian bookworm main", "deb [trusted=yes] http://security.test/debian-security bookworm-security main", "deb [trusted=yes] file:/nowhere bookworm main",
	}}
	s := newStore(t)
	pkg := func(name, archive string) bundle.LockedPackage {
		return bundle.LockedPackage{Name: name, Archive: archive, Digest: hashOf([]byte(name)), Size: int64(len(name))}
	}
	l := &bundle.Lock{
		Packages: []bundle.LockedPackage{pkg("a", "Debian"), pkg("b", "Debian"), pkg("c", "Debian-Security"), pkg("have", "Debian")},
		Files:    []bundle.LockedFile{{Name: "k3s", URL: "https://files.test/k3s", Digest: hashOf([]byte("k3s"))}},
	}
	if _, err := s.PutBytes(ctx, []byte("have")); err != nil {
		t.Fatal(err)
	}
	o := &Options{Mirrors: map[string]string{"files.test": "http://mirror.test:81/x", "quay.io": "https://mirror.test:81"}}
	got, err := Budget(ctx, d, l, s, o)
	want := []HostBudget{{Host: "deb.test", Packages: 2}, {Host: "mirror.test:81", Files: 1}, {Host: "security.test", Packages: 1}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("of the lock: got %+v, %v, want %+v", got, err, want)
	}

	d.K3s.Release = "https://files.test/k3s"
	wanted := []Wanted{{Reference: "quay.io/a/b:1"}, {Reference: "quay.io/a/c:1"}, {Reference: "quay.io/a/c:1"}, {Reference: "ghcr.io/a/b:1", From: "other.test/a/b:1"}}
	got, err = ResolveBudget(ctx, d, wanted, o)
	want = []HostBudget{
		{Host: "deb.test", Indexes: true},
		{Host: "mirror.test:81", Images: 2, Manifests: 2, AtLeast: true, Files: 4},
		{Host: "other.test", Images: 1, Manifests: 1, AtLeast: true},
		{Host: "security.test", Indexes: true},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("of the definition: got %+v, %v, want %+v", got, err, want)
	}

	u := newUpstream(t)
	sources := u.sources(t)
	uo := u.options()
	got, err = SourceBudget(ctx, sources, nil, s, uo)
	if err != nil || len(got) != 1 || got[0].Files != len(sources) {
		t.Errorf("of sources: got %+v, %v, want one host, %d files", got, err, len(sources))
	}
	if u.asked() > 0 {
		t.Error("it dialled")
	}
	locked, err := FetchSources(ctx, d, sources, nil, s, uo)
	if err != nil {
		t.Fatal(err)
	}
	if got, err = SourceBudget(ctx, sources, locked, s, uo); err != nil || len(got) > 0 {
		t.Errorf("of sources that are there: got %+v, %v", got, err)
	}
}

func TestBudgetText(t *testing.T) {
	for _, tc := range []struct {
		b    HostBudget
		want string
	}{
		{HostBudget{Images: 1, Manifests: 1}, "h: 1 image by 1 manifest request"},
		{HostBudget{Images: 2, Manifests: 3, AtLeast: true, Files: 1}, "h: 2 images by at least 3 manifest requests, 1 file"},
		{HostBudget{Files: 4, Packages: 200}, "h: 4 files, 200 packages"},
		{HostBudget{Packages: 1, Indexes: true}, "h: 1 package, package indexes"},
	} {
		tc.b.Host = "h"
		if got := tc.b.String(); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}
