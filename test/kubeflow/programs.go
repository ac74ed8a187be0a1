package kubeflow

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"atoll/bundle"
	"atoll/bundle/manifest"
	"atoll/test/programs/imagedir"
)

// proxy is the image of Istio's proxies. Envoy in it is not compiled but fetched, from where
// not every machine can.
const proxy = "gcr.io/istio-release/proxyv2"

// answered are images whose programs cannot be had, and for which the lab's stand-in answers:
// overlay/stand-ins commands it.
var answered = []string{
	"ghcr.io/kubeflow/kfp-frontend",
	"ghcr.io/kubeflow/kubeflow/central-dashboard",
	"ghcr.io/kubeflow/kubeflow/kfam",
	"ghcr.io/kubeflow/kubeflow/profile-controller",
}

// errNoEnvoy is returned where no appliance of Kubeflow can become ready.
var errNoEnvoy = fmt.Errorf("no image %s among the programs: Envoy could not be fetched", proxy)

// checkPrograms returns an error if a pod of the appliance would run an image that is neither
// in the folder that test/programs writes nor answered for: a program that only sleeps would
// take its place, and nobody would notice.
func checkPrograms(programs string, images []manifest.Image) error {
	entries, err := imagedir.Read(programs)
	if err != nil {
		return fmt.Errorf(`%w; "make programs" builds them`, err)
	}
	var missing []string
	for _, im := range images {
		if im.Tier != bundle.TierRequired || im.Omitted != "" {
			continue
		}
		host, path, _, _, err := bundle.SplitReference(fetched(im))
		if err != nil {
			return err
		}
		repository := host + "/" + path
		has := slices.ContainsFunc(entries, func(e imagedir.Entry) bool { return e.Repository == repository })
		if !has && repository == proxy {
			return errNoEnvoy
		}
		if !has && !slices.Contains(answered, repository) {
			missing = append(missing, repository)
		}
	}
	if len(missing) > 0 {
		return errors.New("among the programs is no image " + strings.Join(missing, ", ") + `; "make programs", with the same FULL= and AUTH=, builds what can be had`)
	}
	return nil
}

// fetched is the name that an image is fetched by.
func fetched(im manifest.Image) string {
	if im.From != "" {
		return im.From
	}
	return im.Reference
}
