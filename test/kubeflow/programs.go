package kubeflow

import (
	"fmt"
	"slices"

	"atoll/test/programs/imagedir"
)

// proxy is the image of Istio's proxies. Envoy in it is not compiled but fetched, from where
// not every machine can.
const proxy = "gcr.io/istio-release/proxyv2"

// Bootable returns why an appliance with the images of a folder, which test/programs
// writes, would not become ready; nil if it would.
func Bootable(programs string) error {
	entries, err := imagedir.Read(programs)
	if err != nil {
		return fmt.Errorf(`%w; "make programs" builds them`, err)
	}
	if !slices.ContainsFunc(entries, func(e imagedir.Entry) bool { return e.Repository == proxy }) {
		return fmt.Errorf("no image %s among the programs: Envoy could not be fetched", proxy)
	}
	return nil
}
