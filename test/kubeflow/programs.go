package kubeflow

import (
	"fmt"
	"slices"

	"atoll/test/programs/imagedir"
)

const (
	// proxy is the image of Istio's proxies. Envoy in it is not compiled but fetched, from
	// where not every machine can.
	proxy = "gcr.io/istio-release/proxyv2"
	// authService is the image that the node waits for with this way to sign in.
	authService = "docker.io/kubeflowmanifestswg/oidc-authservice"
	// smallStore and fullStore are the object stores of the two sets of programs.
	smallStore = "ghcr.io/atoll-lab/gofakes3"
	fullStore  = "docker.io/chrislusf/seaweedfs"
)

// Bootable returns why an appliance with the images of a folder, which test/programs
// writes, a way to sign in, and the small or the whole set of programs would not become ready;
// nil if it would.
func Bootable(programs, auth string, full bool) error {
	entries, err := imagedir.Read(programs)
	if err != nil {
		return fmt.Errorf(`%w; "make programs" builds them`, err)
	}
	has := func(repository string) bool {
		return slices.ContainsFunc(entries, func(e imagedir.Entry) bool { return e.Repository == repository })
	}
	switch {
	case !has(proxy):
		return fmt.Errorf("no image %s among the programs: Envoy could not be fetched", proxy)
	case auth == "authservice" && !has(authService):
		return fmt.Errorf(`no image %s among the programs, which auth: %s needs; "make programs" builds it`, authService, auth)
	case full && !has(fullStore):
		return fmt.Errorf(`no image %s among the programs; "make programs FULL=1" builds the whole set`, fullStore)
	case !full && !has(smallStore):
		return fmt.Errorf(`no image %s among the programs; "make programs" builds it`, smallStore)
	}
	return nil
}
