package main

import (
	"os"
	"path/filepath"
	"testing"

	"atoll/bundle/manifest"
)

// TestAddonsAPIServices: an API server that is called by a Service needs a way to be known,
// or every call fails, though the APIService says that it is available.
func TestAddonsAPIServices(t *testing.T) {
	files, err := filepath.Glob("node/addons/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no add-ons: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		objs, err := manifest.Parse(file, data)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objs {
			spec, _ := o.Value["spec"].(map[string]any)
			if o.Value["kind"] == "APIService" && spec["caBundle"] == nil && spec["insecureSkipTLSVerify"] != true {
				t.Errorf("%s: APIService of %v cannot be called: it has neither caBundle nor insecureSkipTLSVerify", file, spec["group"])
			}
		}
	}
}
