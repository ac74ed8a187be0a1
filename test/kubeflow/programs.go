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

// fairing is the image of Kubeflow Fairing. Not every machine can fetch Python's packages.
const fairing = "ghcr.io/atoll-lab/fairing:1.0"

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
	has, err := readPrograms(programs)
	if err != nil {
		return err
	}
	var missing []string
	for _, im := range images {
		if im.Tier != bundle.TierRequired || im.Omitted != "" {
			continue
		}
		repository, err := imagedir.Repository(fetched(im))
		if err != nil {
			return err
		}
		if !has[repository] && repository == proxy {
			return errNoEnvoy
		}
		if !has[repository] && !slices.Contains(answered, repository) {
			missing = append(missing, repository)
		}
	}
	if len(missing) > 0 {
		return errors.New("among the programs is no image " + strings.Join(missing, ", ") + `; "make programs", with the same FULL= and AUTH=, builds what can be had`)
	}
	return nil
}

// withoutFairing takes Fairing's image out of a definition's where it is not among the programs:
// in its place would be a program that only sleeps.
func withoutFairing(programs string, images []string) ([]string, error) {
	if !slices.Contains(images, fairing) {
		return images, nil
	}
	has, err := readPrograms(programs)
	if err != nil {
		return nil, err
	}
	repository, err := imagedir.Repository(fairing)
	if err != nil {
		return nil, err
	}
	if has[repository] {
		return images, nil
	}
	return slices.DeleteFunc(slices.Clone(images), func(name string) bool { return name == fairing }), nil
}

// readPrograms returns the repositories of the images in a folder that test/programs writes.
func readPrograms(dir string) (map[string]bool, error) {
	entries, err := imagedir.Read(dir)
	if err != nil {
		return nil, fmt.Errorf(`%w; "make programs" builds them`, err)
	}
	has := map[string]bool{}
	for _, e := range entries {
		has[e.Repository] = true
	}
	return has, nil
}

// fetched is the name that an image is fetched by.
func fetched(im manifest.Image) string {
	if im.From != "" {
		return im.From
	}
	return im.Reference
}
