package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The peers at mirroring that are Go modules. Skopeo is Debian's.
const (
	cranePackage  = "github.com/google/go-containerregistry/cmd/crane@v0.22.1"
	regctlPackage = "github.com/regclient/regclient/cmd/regctl@v0.11.7"
)

// puller is a way to get the set out of a registry.
type puller struct {
	name string
	how  string // it is run
	kind pullerKind
	// command pulls all from the registry at HOST:PORT into a folder.
	command func(registry, dir string) *exec.Cmd

	coldSeconds, warmSeconds, resumedSeconds []float64
	// Bytes on the wire; of the resumed run with those of the one that was killed.
	coldWire, warmWire, resumedWire int64
	disk, memory                    int64 // bytes
}

type pullerKind int

const (
	floor  pullerKind = iota // only fetches, and does not resume
	peer                     // as it is used: a layout for each image
	shared                   // a peer at its best, with one layout for all; cold only
	own
)

// newPullers gives the floor, the peers and atoll, in the order of their turns. tools is
// a folder that gets programs and lists.
func newPullers(tools, atoll, definition string, set *imageSet) ([]*puller, error) {
	list := filepath.Join(tools, "images")
	var lines strings.Builder
	for _, n := range set.names {
		fmt.Fprintf(&lines, "%s/%s %s\n", registryHost, n, strings.NewReplacer("/", "-", ":", "-").Replace(n))
	}
	if err := os.WriteFile(list, []byte(lines.String()), 0o644); err != nil {
		return nil, err
	}
	// A loop as one writes it, that ends at the first failure.
	loop := func(script string, args ...string) *exec.Cmd {
		return exec.Command("sh", append([]string{"-c", "while read -r from to; do " + script + " || exit; done <" + list, "sh"}, args...)...)
	}
	crane, regctl := filepath.Join(tools, "crane"), filepath.Join(tools, "regctl")
	return []*puller{
		{name: "curl", kind: floor, how: "-Z --parallel-max 8: every distinct blob once, not hashed", command: func(registry, dir string) *exec.Cmd {
			cmd := exec.Command("curl", "-sS", "--fail", "-Z", "--parallel-max", "8", "--parallel-immediate", "--create-dirs", "-K", "-")
			var config strings.Builder
			for _, b := range set.blobs {
				fmt.Fprintf(&config, "url = http://%s/v2/%s/%s/blobs/%s\noutput = %s\n", registry, registryHost, b.repository, b.digest, filepath.Join(dir, b.digest.Hex))
			}
			cmd.Stdin = strings.NewReader(config.String())
			return cmd
		}},
		{name: "crane", kind: peer, how: "pull --format=oci, a loop over the images", command: func(registry, dir string) *exec.Cmd {
			return loop(`"$1" pull --format=oci "$2/$from" "$3/$to"`, crane, registry, dir)
		}},
		{name: "regctl", kind: peer, how: "image copy to an ocidir, a loop over the images", command: func(registry, dir string) *exec.Cmd {
			return loop(`"$1" image copy --host "reg=$2,tls=disabled" "$2/$from" "ocidir://$3/$to:1.0"`, regctl, registry, dir)
		}},
		{name: "skopeo", kind: peer, how: "copy to an OCI layout, a loop over the images", command: func(registry, dir string) *exec.Cmd {
			return loop(`skopeo --insecure-policy copy -q --src-tls-verify=false "docker://$1/$from" "oci:$2/$to:1.0"`, registry, dir)
		}},
		{name: "crane-1", kind: shared, how: "pull --format=oci, all images in one call, one layout", command: func(registry, dir string) *exec.Cmd {
			args := []string{"pull", "--format=oci"}
			for _, n := range set.names {
				args = append(args, registry+"/"+registryHost+"/"+n)
			}
			return exec.Command(crane, append(args, dir)...)
		}},
		{name: "regctl-1", kind: shared, how: "the loop, one ocidir", command: func(registry, dir string) *exec.Cmd {
			return loop(`"$1" image copy --host "reg=$2,tls=disabled" "$2/$from" "ocidir://$3:$to"`, regctl, registry, dir)
		}},
		{name: "skopeo-1", kind: shared, how: "the loop, one OCI layout", command: func(registry, dir string) *exec.Cmd {
			return loop(`skopeo --insecure-policy copy -q --src-tls-verify=false "docker://$1/$from" "oci:$2:$to"`, registry, dir)
		}},
		{name: "atoll", kind: own, how: "mirror, of a lock", command: func(registry, dir string) *exec.Cmd {
			return atollCommand(atoll, "mirror", definition, registry, dir)
		}},
	}, nil
}

// atollCommand is lock or mirror.
func atollCommand(atoll, what, definition, registry, cache string) *exec.Cmd {
	return exec.Command(atoll, what, "-f", definition, "--cache", cache, "--mirror", registryHost+"=http://"+registry+"/"+registryHost)
}
