// Package test holds what the tests of several rooms share: the check of the
// rooms' imports, and the lab appliance from end to end.
package test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rooms never import each other, only the bundle.
var rooms = []string{"atoll/images", "atoll/images/disk", "atoll/ignition", "atoll/bundle/manifest", "atoll/bundle/sbom"}

// offline rooms link no network.
var offline = []string{"atoll/bundle", "atoll/bundle/sbom", "atoll/images/disk"}

func deps(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", pkg).Output()
	if err != nil {
		t.Fatalf("listing what %s imports: %v", pkg, err)
	}
	return strings.Fields(string(out))
}

func TestRoomsStayApart(t *testing.T) {
	for _, room := range rooms {
		for _, dep := range deps(t, room) {
			if dep != room && (slices.Contains(rooms, dep) || strings.HasPrefix(dep, "atoll/cmd")) {
				t.Errorf("%s imports %s", room, dep)
			}
		}
	}
	for _, dep := range deps(t, "atoll/bundle") { // where bounds are all there is below
		if strings.HasPrefix(dep, "atoll/") && dep != "atoll/bundle" && dep != "atoll/bundle/bounds" {
			t.Errorf("atoll/bundle imports %s", dep)
		}
	}
}

func TestOfflineRoomsLinkNoNetwork(t *testing.T) {
	for _, room := range offline {
		if slices.Contains(deps(t, room), "net/http") {
			t.Errorf("%s links net/http", room)
		}
	}
}
