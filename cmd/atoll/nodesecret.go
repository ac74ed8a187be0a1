package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"atoll/ignition/firstboot"
)

func newNodeSecretCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "secret [NAME]",
		Short: "Print a secret that this node made up",
		Long: `Secret prints the value of a secret that this node made up on its first boot, like
the password that a person signs in with. Without NAME it lists what there is.`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, names []string) error {
			if len(names) == 0 {
				return runNodeSecrets(e, firstboot.SecretsPath)
			}
			return runNodeSecret(e, firstboot.SecretsPath, names[0])
		},
	}
}

// runNodeSecret prints the value of one secret.
func runNodeSecret(e *env, path, name string) error {
	secrets, err := readSecrets(path)
	if err != nil {
		return err
	}
	s, ok := secrets[name]
	if !ok {
		return withHint(fmt.Errorf("no secret %q on this node", name), `"atoll node secret" lists those that there are`)
	}
	_, err = fmt.Fprintln(e.stdout, s.Value)
	return err
}

// runNodeSecrets lists the secrets, without their values.
func runNodeSecrets(e *env, path string) error {
	secrets, err := readSecrets(path)
	if err != nil {
		return err
	}
	t := newTable(e.stdout)
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		t.row(name, secrets[name].User, secrets[name].Reason)
	}
	return t.Flush()
}

func readSecrets(path string) (map[string]firstboot.Secret, error) {
	secrets, err := firstboot.ReadSecrets(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, withHint(err, `this runs on an appliance, once its phase "secrets" is over: atoll node status`)
	case errors.Is(err, fs.ErrPermission):
		// Not wrapped: the hint for that is about writing.
		return nil, withHint(errors.New(err.Error()), "root alone may read them: sudo atoll node secret")
	}
	return secrets, err
}
