package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"atoll/bundle"
)

//go:embed appliance.yaml.tmpl
var starter string

// k3sVersion is the release that a new definition names: the newest patch seen
// of the minor that Kubeflow 26.03 is tested on.
const k3sVersion = "v1.34.9+k3s1"

type initOptions struct {
	stack string
}

func newInitCommand(e *env) *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a commented appliance.yaml to start from",
		Long:  "Init writes a commented appliance.yaml into DIR (default: here). It never overwrites one.\n" + exitStatus,
		Args:  args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			return runInit(e, o, append(args, ".")[0])
		},
	}
	cmd.Flags().StringVar(&o.stack, "stack", "lab", "stack to install")
	return cmd
}

func runInit(e *env, o initOptions, dir string) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	var text strings.Builder
	tmpl := template.Must(template.New("appliance.yaml").Parse(starter))
	if err := tmpl.Execute(&text, map[string]string{"Name": dnsLabel(filepath.Base(abs)), "Stack": o.stack, "K3s": k3sVersion}); err != nil {
		return err
	}
	path := filepath.Join(dir, "appliance.yaml")
	if _, err := bundle.ParseDefinition(path, []byte(text.String())); err != nil {
		return usageError{err}
	}
	if _, err := os.Lstat(path); err == nil {
		return withHint(fmt.Errorf("%s is there already", path), "choose another folder, or remove it")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := bundle.WriteFile(path, func(f *os.File) error {
		_, err := f.WriteString(text.String())
		return err
	}); err != nil {
		return err
	}
	e.say("wrote %s; next: atoll build -f %s", path, path)
	return nil
}

// dnsLabel makes a folder's name a usable appliance name.
func dnsLabel(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, s)
	if s = strings.Trim(s[:min(len(s), 63)], "-"); s == "" {
		return "appliance"
	}
	return s
}
