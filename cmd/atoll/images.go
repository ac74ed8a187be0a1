package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

type imagesOptions struct {
	projectOptions
	json bool
}

func newImagesCommand(e *env) *cobra.Command {
	var o imagesOptions
	cmd := &cobra.Command{
		Use:   "images",
		Short: "List the images that the stack needs, and where each was found",
		Long:  "Images renders the stack and lists every image it needs. It uses no network.\n" + exitStatus,
		Args:  args(cobra.NoArgs),
		RunE:  func(*cobra.Command, []string) error { return runImages(e, o) },
	}
	o.addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&o.json, "json", false, "print a JSON list of objects with reference, tier and where")
	return cmd
}

func runImages(e *env, o imagesOptions) error {
	p, err := o.load()
	if err != nil {
		return err
	}
	if o.json {
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(p.images)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	for _, i := range p.images {
		for _, where := range i.Where {
			fmt.Fprintf(w, "%s\t%s\t%s\n", i.Reference, i.Tier, where)
		}
	}
	return w.Flush()
}
