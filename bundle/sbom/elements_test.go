package sbom

import (
	"runtime/debug"
	"testing"

	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
)

// Of a module that another replaces, the other is what runs.
func TestReplacedModule(t *testing.T) {
	b := &builder{doc: &spdx.Document{}, taken: map[common.ElementID]bool{}}
	b.addModule(&debug.Module{Path: "example.test/old", Version: "v1.0.0",
		Replace: &debug.Module{Path: "example.test/New/v2", Version: "v2.3.4+incompatible", Sum: "h1:abc="}})
	p := b.doc.Packages[0]
	if p.PackageName != "example.test/New/v2" || p.PackageVersion != "v2.3.4+incompatible" ||
		p.PackageComment != "It replaces example.test/old v1.0.0." || p.PackageSourceInfo != "go.sum has h1:abc=" ||
		p.PackageExternalReferences[0].Locator != "pkg:golang/example.test/new/v2@v2.3.4%2Bincompatible" {
		t.Errorf("%+v %+v", p, p.PackageExternalReferences[0])
	}
}
