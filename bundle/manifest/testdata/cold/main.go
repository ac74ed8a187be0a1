// Cold renders several components at once in a process that has rendered nothing before.
// TestColdRendering runs it under the race detector.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing/fstest"
	"time"

	"atoll/bundle"
	"atoll/bundle/manifest"
	"atoll/bundle/stack"
)

// Custom kinds have their scope looked up; the patch, of one component, needs the schema.
const kustomization = `namespace: nsNAME
resources: [objects.yaml]
`

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec: {selector: {matchLabels: {a: b}}, template: {spec: {containers: [{name: c, image: a/b:1}]}}}
`

func main() {
	fsys := fstest.MapFS{}
	phase := stack.Phase{Name: "all", Timeout: time.Minute}
	for i := range 8 {
		name := fmt.Sprintf("c%d", i)
		objects := deployment
		for j := range 40 + 20*i {
			objects += fmt.Sprintf("---\napiVersion: k%d.example.test/v1\nkind: Kind%d\nmetadata: {name: o%d}\nspec: {a: b}\n", i, j, j)
		}
		text := strings.ReplaceAll(kustomization, "NAME", name)
		if i == 0 {
			text += "patches: [{path: patch.yaml}]\n"
		}
		fsys[name+"/kustomization.yaml"] = &fstest.MapFile{Data: []byte(text)}
		fsys[name+"/objects.yaml"] = &fstest.MapFile{Data: []byte(objects)}
		fsys[name+"/patch.yaml"] = &fstest.MapFile{Data: []byte(strings.Replace(deployment, "b:1", "b:2", 1))}
		phase.Components = append(phase.Components, name)
	}
	s := &stack.Stack{Name: "cold", FS: fsys, Phases: []stack.Phase{phase}}
	if _, _, err := manifest.Plan(context.Background(), manifest.Input{Stack: s, Definition: &bundle.Definition{}}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
