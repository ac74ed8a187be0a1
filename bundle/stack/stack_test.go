package stack

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestLoad(t *testing.T) {
	for _, name := range Names() {
		s, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		if s.Description == "" {
			t.Errorf("stack %s has no description", name)
		}
	}
	if _, err := Load("../lab"); err == nil || !strings.Contains(err.Error(), "lab") {
		t.Errorf("unknown stack: got %v, want an error that lists the known ones", err)
	}
}

func TestParseIsStrict(t *testing.T) {
	const good = "name: x\nphases: [{name: a, components: [c], timeout: 1m}]\n"
	for _, tc := range []struct{ name, yaml, want string }{
		{"good", good, ""},
		{"unknown field", good + "colour: red\n", "colour"},
		{"no timeout", "name: x\nphases: [{name: a, components: [c]}]\n", "timeout is missing"},
		{"phase twice", "name: x\nphases: [{name: a, components: [c], timeout: 1m}, {name: a, components: [c], timeout: 1m}]\n", "taken"},
		{"no folder", "name: x\nphases: [{name: a, components: [d], timeout: 1m}]\n", `"d" is no folder`},
		{"no phases", "name: x\n", "needs a name and phases"},
		{"waiver without reason", good + "waivers: [{image: a/b:c}]\n", "reason"},
		{"empty", "", "EOF"},
		{"no kinds either", "name: x\nphases: [{name: a, timeout: 1m}]\n", "no components and no kinds"},
		{"rest of a component", "name: x\nphases: [{name: a, components: [c], kinds: [Pod], timeout: 1m}]\n", `no phase takes the rest of component "c"`},
		{"component twice", "name: x\nphases: [{name: a, components: [c], timeout: 1m}, {name: b, components: [c], timeout: 1m}]\n", `in phase "a" already`},
		{"auth of no phase", good + "auth: [{name: w, components: [d]}]\n", `component "d" is in no phase`},
		{"extra of no component", good + "extras: [{image: a/b:c, component: d, reason: r}]\n", "needs an image, a component and a reason"},
		{"substitute from nowhere", good + "substitutes: [{image: a/b:c, reason: r}]\n", "where it is from"},
		{"source without ref", good + "sources: [{name: s, repository: 'https://x.test/a/b'}]\n", "a repository with a ref"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parse(fstest.MapFS{
				"stack.yaml":           {Data: []byte(tc.yaml)},
				"c/kustomization.yaml": {Data: []byte("resources: []\n")},
			})
			if tc.want == "" && err != nil {
				t.Fatal(err)
			}
			if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Fatalf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

// TestSourcesAreStated: a source without a hash is locked at first sight. There is one, whose
// upstream publishes none.
func TestSourcesAreStated(t *testing.T) {
	var unstated []string
	for _, name := range Names() {
		s, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, src := range s.Sources {
			if !src.Stated() {
				unstated = append(unstated, src.Name)
			}
			if src.Repository != "" && src.Commit == "" {
				t.Errorf("source %s names no commit", src.Name)
			}
		}
	}
	if got := strings.Join(unstated, " "); got != "jobset" {
		t.Errorf("nothing vouches for %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range Names() {
		data, err := files.ReadFile(name + "/stack.yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("name: x\nphases: [{name: a, components: [c], timeout: 1m}]\n"))
	f.Add([]byte("name: x\nphases: [{name: a, components: [../c, '', /], timeout: -1m}]\n"))
	f.Add([]byte("phases: &p [{components: *p}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parse(fstest.MapFS{"stack.yaml": {Data: data}, "c/kustomization.yaml": {}})
		if err != nil {
			return
		}
		if s.Name == "" || len(s.Phases) == 0 {
			t.Errorf("parsed %+v", s)
		}
		for _, c := range s.Components() {
			if c != "c" && c != "." {
				t.Errorf("component %q", c)
			}
		}
		if _, err := s.Choose("", nil); err != nil && len(s.Auth) == 0 {
			t.Error(err)
		}
	})
}
