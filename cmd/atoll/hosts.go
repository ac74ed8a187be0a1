package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"atoll/images"
)

// mirrorFlag is a flag's value: URLs by the hosts that they stand for.
type mirrorFlag map[string]string

func (m *mirrorFlag) Set(s string) error {
	for pair := range strings.SplitSeq(s, ",") {
		host, to, found := strings.Cut(pair, "=")
		if !found {
			return errors.New("a mirror is given by HOST=URL")
		}
		host, _, err := images.ParseMirror(host, to)
		if err != nil {
			return err
		}
		if *m == nil {
			*m = mirrorFlag{}
		}
		(*m)[host] = to
	}
	return nil
}

func (m *mirrorFlag) String() string { return "" } // it has no default to show
func (m *mirrorFlag) Type() string   { return "HOST=URL" }

// hostsFlag is a flag's value: hosts of registries.
type hostsFlag []string

func (h *hostsFlag) Set(s string) error {
	for host := range strings.SplitSeq(s, ",") {
		host, err := images.RegistryHost(host)
		if err != nil {
			return err
		}
		*h = append(*h, host)
	}
	return nil
}

func (h *hostsFlag) String() string { return "" } // it has no default to show
func (h *hostsFlag) Type() string   { return "HOST" }

// withoutValue makes an error of these flags, whose value may hold a password, not repeat it.
func withoutValue(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	switch invalid.GetFlag().Value.(type) {
	case *mirrorFlag, *hostsFlag:
		return fmt.Errorf("invalid argument for --%s: %w", invalid.GetFlag().Name, invalid.Unwrap())
	}
	return err
}

// warnOfNeedless tells of hosts that the flags name and nobody is asked for: a misspelt one
// does nothing.
func (p *project) warnOfNeedless(e *env, o *images.Options, names []string) {
	mirrors, plain, asked := o.Needless(p.def, names, p.stack.Sources)
	warn := func(flag string, hosts []string) {
		if len(hosts) > 0 {
			e.say("atoll: warning: %s %s: nothing comes from there; what is needed comes from %s", flag, strings.Join(hosts, ", "), strings.Join(asked, ", "))
		}
	}
	warn("--mirror", mirrors)
	warn("--plain-http", plain)
}
