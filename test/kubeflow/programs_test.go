package kubeflow

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/random"

	"atoll/bundle"
	"atoll/bundle/manifest"
	"atoll/test/programs/imagedir"
)

// TestCheckPrograms: an appliance is not built with a program missing that one of its pods runs.
func TestCheckPrograms(t *testing.T) {
	const store, controller = "ghcr.io/atoll-lab/gofakes3", "quay.io/argoproj/workflow-controller"
	images := []manifest.Image{
		{Reference: proxy + ":1.29.0", Tier: bundle.TierRequired},
		{Reference: "lab.test/substituted:1", From: store + ":1.0", Tier: bundle.TierRequired},
		{Reference: controller + ":v3.7.3@sha256:" + strings.Repeat("0", 64), Tier: bundle.TierRequired},
		{Reference: answered[0] + ":2.16.0", Tier: bundle.TierRequired},
		{Reference: "docker.io/library/python:3.11", Tier: bundle.TierRuntime},
		{Reference: "lab.test/absent:1", Tier: bundle.TierRequired, Omitted: "excluded by the definition"},
	}
	if err := checkPrograms(t.TempDir(), images); err == nil {
		t.Error("a folder without images is enough")
	}
	for _, c := range []struct {
		has     []string
		missing string // "" if it is enough
	}{
		{[]string{proxy, store, controller}, ""},
		{[]string{store, controller}, proxy},
		{[]string{proxy, controller}, store},
		{[]string{proxy, store}, controller},
	} {
		dir := t.TempDir()
		programsFolder(t, dir, c.has...)
		err := checkPrograms(dir, images)
		if (err == nil) != (c.missing == "") || err != nil && !strings.Contains(err.Error(), c.missing) {
			t.Errorf("%q: %v, want %q missing", c.has, err, c.missing)
		}
		if errors.Is(err, errNoEnvoy) != (c.missing == proxy) {
			t.Errorf("%q: %v tells whether Envoy is missing", c.has, err)
		}
	}
}

// TestWithoutFairing: where Python's packages could not be fetched the appliance is built all
// the same, and has no image of Fairing, not one that does nothing.
func TestWithoutFairing(t *testing.T) {
	if _, err := withoutFairing(t.TempDir(), []string{fairing}); err == nil {
		t.Error("a folder without images is enough")
	}
	full := []string{"ghcr.io/atoll-lab/probe:1.0", fairing, "docker.io/library/spark:3.5.2"}
	for repository, want := range map[string][]string{
		"ghcr.io/atoll-lab/fairing":  full,
		"ghcr.io/atoll-lab/gofakes3": {full[0], full[2]},
	} {
		dir := t.TempDir()
		programsFolder(t, dir, repository)
		got, err := withoutFairing(dir, full)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("with %s among the programs: %q, %v; want %q", repository, got, err, want)
		}
	}
	if got, err := withoutFairing(t.TempDir(), full[:1]); err != nil || len(got) != 1 {
		t.Errorf("a definition without Fairing: %q, %v", got, err)
	}
}

// programsFolder writes a folder of programs.
func programsFolder(t *testing.T, dir string, repositories ...string) {
	t.Helper()
	img, err := random.Image(10, 1)
	if err != nil {
		t.Fatal(err)
	}
	d, err := imagedir.Add(dir, img)
	if err != nil {
		t.Fatal(err)
	}
	var entries []imagedir.Entry
	for _, r := range repositories {
		entries = append(entries, imagedir.Entry{Repository: r, Descriptor: d})
	}
	if err := imagedir.WriteIndex(dir, entries); err != nil {
		t.Fatal(err)
	}
}
