package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"atoll/bundle/manifest"
)

type imagesOptions struct {
	projectOptions
	manifests string
	json      bool
}

func newImagesCommand(e *env) *cobra.Command {
	var o imagesOptions
	cmd := &cobra.Command{
		Use:   "images",
		Short: "List the images that the stack needs, and where each was found",
		Long: `Images renders the stack and lists every image it needs, a line for each place that
names one. With --manifests it reads any other manifests instead. It uses no network.

What looks like an image but cannot be told is reported to stderr.
` + exitStatus,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.manifests != "" && cmd.Flags().Changed("file") {
				return usageError{withHint(errors.New("--file and --manifests exclude each other"), "%s --help", cmd.CommandPath())}
			}
			return runImages(e, o)
		},
	}
	o.addFlags(cmd.Flags())
	cmd.Flags().StringVar(&o.manifests, "manifests", "", "file, folder or kustomization to search instead of a definition's stack")
	cmd.Flags().BoolVar(&o.json, "json", false, "print a JSON list of objects with reference, tier and where")
	return cmd
}

func runImages(e *env, o imagesOptions) error {
	found, err := o.find()
	if err != nil {
		return err
	}
	for _, d := range found.Doubts {
		e.say("atoll: warning: %s", d)
	}
	if o.json {
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(found.Images)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	for _, i := range found.Images {
		for _, where := range i.Where {
			fmt.Fprintf(w, "%s\t%s\t%s\n", i.Reference, i.Tier, where)
		}
	}
	return w.Flush()
}

// find gives the images of the definition's stack, or of other manifests.
func (o *imagesOptions) find() (*manifest.Findings, error) {
	if o.manifests == "" {
		p, err := o.load()
		if err != nil {
			return nil, err
		}
		return p.found, nil
	}
	objs, err := manifest.Read(o.manifests)
	if err != nil {
		return nil, err
	}
	return manifest.Images(objs)
}
