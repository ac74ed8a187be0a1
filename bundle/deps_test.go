package bundle_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The package never dials out: it does not even link what could.
func TestLinksNoNetwork(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Skip("no go to ask:", err)
	}
	for _, banned := range []string{"net", "net/http", "crypto/tls"} {
		if slices.Contains(strings.Fields(string(out)), banned) {
			t.Errorf("links %s", banned)
		}
	}
}
