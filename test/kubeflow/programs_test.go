package kubeflow

import (
	"errors"
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
		img, err := random.Image(10, 1)
		if err != nil {
			t.Fatal(err)
		}
		d, err := imagedir.Add(dir, img)
		if err != nil {
			t.Fatal(err)
		}
		var entries []imagedir.Entry
		for _, r := range c.has {
			entries = append(entries, imagedir.Entry{Repository: r, Descriptor: d})
		}
		if err := imagedir.WriteIndex(dir, entries); err != nil {
			t.Fatal(err)
		}
		err = checkPrograms(dir, images)
		if (err == nil) != (c.missing == "") || err != nil && !strings.Contains(err.Error(), c.missing) {
			t.Errorf("%q: %v, want %q missing", c.has, err, c.missing)
		}
		if errors.Is(err, errNoEnvoy) != (c.missing == proxy) {
			t.Errorf("%q: %v tells whether Envoy is missing", c.has, err)
		}
	}
}
