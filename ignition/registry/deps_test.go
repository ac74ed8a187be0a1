package registry

import (
	"os/exec"
	"strings"
	"testing"
)

// Distribution can store in clouds and tell of itself to others. None of that is linked.
func TestLinksNoClouds(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Skip("no go to ask:", err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, banned := range []string{
			"google.golang.org/grpc", "go.opentelemetry.io/otel/exporters", "go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/contrib",
			"github.com/aws", "github.com/Azure", "cloud.google.com", "net/http/pprof",
			"github.com/distribution/distribution/v3/registry/storage/driver/base", "github.com/distribution/distribution/v3/registry/storage/driver/filesystem",
		} {
			if dep == banned || strings.HasPrefix(dep, banned+"/") {
				t.Errorf("links %s", dep)
			}
		}
	}
}
