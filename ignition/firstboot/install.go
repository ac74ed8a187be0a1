package firstboot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	ssautil "github.com/fluxcd/pkg/ssa/utils"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"atoll/bundle"
)

const (
	// installedPath records what is installed, on the data partition with what it tells of.
	// Until it is there the node starts over at each boot.
	installedPath = "/var/lib/rancher/atoll/installed.json"
	// k3sTimeout bounds the start of k3s. A slow machine without KVM takes two minutes.
	k3sTimeout = 15 * time.Minute
	// What failed is tried again after a pause. It is as long as the attempt took, so that a slow
	// machine spends at most half its time on asking; or this part of the time waited so far, if
	// that is longer, so that what takes minutes is not asked for every second. It stays between
	// the first two.
	minRetryPause = time.Second
	maxRetryPause = 10 * time.Second
	partOfWaited  = 30
)

// installed is the record of a finished installation.
type installed struct {
	Plan    string    `json:"plan"`    // digest of the plan
	Cluster types.UID `json:"cluster"` // of the namespace kube-system: another cluster has nothing installed
}

// Install waits for k3s and installs the bundle's plan, phase by phase: server-side
// apply, then a wait until all of the phase is as it should be. What can pass by itself
// (an API server that restarts, a webhook that does not answer yet) is tried again until
// the phase's time is up. A plan that was installed before is not applied again, only
// waited for. What the plan wants made up is made up before the first phase, and kept.
func Install(ctx context.Context, b *bundle.Bundle, kubeconfig string, o *Options) error {
	opts := o.withDefaults()
	if err := opts.damage(); err != nil { // found by an earlier attempt
		return fmt.Errorf("installing: %w", err)
	}
	plan, err := b.Plan()
	if err != nil {
		return fmt.Errorf("installing: %w", err)
	}
	data, err := plan.Encode()
	if err != nil {
		return fmt.Errorf("installing: %w", err)
	}
	phases, err := parsePhases(plan, opts)
	if err != nil {
		return fmt.Errorf("installing: %w", err)
	}
	record := installed{Plan: bundle.DigestOf(data).String()}
	var c *cluster
	err = opts.phase(phaseK3s, func() error {
		ctx, cancel := context.WithTimeout(ctx, k3sTimeout)
		defer cancel()
		if c, err = connect(ctx, kubeconfig, opts); err != nil {
			return err
		}
		record.Cluster, err = c.uid(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("installing: waiting for k3s: %w", err)
	}
	if err := opts.phase(phaseWritable, func() error { return c.openWritable(ctx) }); err != nil {
		return fmt.Errorf("installing: the registry that users push to: %w", err)
	}
	again := isInstalled(opts.installed, record)
	if len(plan.Secrets) > 0 {
		path := filepath.Join(filepath.Dir(opts.installed), filepath.Base(SecretsPath))
		err := opts.phase(phaseSecrets, func() error { return placeSecrets(path, plan.Secrets, phases, again) })
		if err != nil {
			return fmt.Errorf("installing: %w", err)
		}
	}
	for i, p := range plan.Phases {
		if err := opts.phase(p.Name, func() error { return c.install(ctx, p, phases[i], again) }); err != nil {
			return fmt.Errorf("installing phase %s: %w", p.Name, err)
		}
	}
	if !again {
		if err := writeInstalled(opts.installed, record); err != nil {
			return fmt.Errorf("installing: %w", err)
		}
	}
	fmt.Fprintln(opts.Console, "atoll: ready")
	for _, s := range plan.Secrets {
		if s.User != "" {
			fmt.Fprintf(opts.Console, "atoll: sign in as %s; the password: sudo atoll node secret %s\n", s.User, s.Name)
		}
	}
	return opts.update(func(s *bundle.Status) { s.State, s.Error, s.Log = bundle.StateReady, "", nil })
}

// isInstalled says whether the record is the one on disk. One that cannot be read
// only costs another apply, which changes nothing.
func isInstalled(path string, want installed) bool {
	var got installed
	data, err := os.ReadFile(path)
	return err == nil && json.Unmarshal(data, &got) == nil && got == want
}

func writeInstalled(path string, record installed) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// With this record the node never starts over, so all that it stands for comes first.
	if err := flush(filepath.Dir(path)); err != nil {
		return err
	}
	return bundle.WriteFile(path, func(f *os.File) error { return json.NewEncoder(f).Encode(record) })
}

// parsePhases gives the objects of each phase. One that cannot be parsed has failed.
func parsePhases(plan *bundle.Plan, opts Options) ([][]*unstructured.Unstructured, error) {
	var phases [][]*unstructured.Unstructured
	for _, p := range plan.Phases {
		objs, err := ssautil.ReadObjects(strings.NewReader(p.Manifest))
		if err != nil {
			err = fmt.Errorf("parsing manifest of phase %s: %w", p.Name, err)
			return nil, opts.phase(p.Name, func() error { return err })
		}
		phases = append(phases, objs)
	}
	return phases, nil
}

// install brings one phase about.
func (c *cluster) install(ctx context.Context, p bundle.Phase, objs []*unstructured.Unstructured, again bool) error {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	if !again {
		taken := taken{}
		err := c.retry(ctx, p.Name, func() error { return c.apply(ctx, fieldManager, objs, taken) })
		if err != nil {
			return err
		}
	}
	bad := objs
	err := c.retry(ctx, p.Name, func() (err error) {
		// Only what was not as it should be is looked at again: on a slow machine the API server
		// has more to do. At the end all must be so at once.
		whole := len(bad) == len(objs)
		if bad, err = c.check(ctx, bad, again); err == nil && !whole {
			bad, err = c.check(ctx, objs, again)
		}
		return err
	})
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return &failure{err, c.diagnose(objs)}
}

// damage is why the registry's phase has failed, if it has: something in the bundle is not
// what it should be, and what needs it can be waited for for ever.
func (o Options) damage() error {
	s, err := ReadStatus(o.Status)
	if err != nil {
		return nil // nothing was told
	}
	for _, p := range s.Phases {
		if p.Name == phaseRegistry && p.State == bundle.StateFailed {
			return fmt.Errorf("phase %s has failed: %s", phaseRegistry, p.Message)
		}
	}
	return nil
}

// retry runs try until it succeeds, fails for good, or the time is up, and tells what stands in the way.
func (c *cluster) retry(ctx context.Context, phase string, try func() error) error {
	last := ""
	var lastErr error
	first := time.Now()
	for {
		began := time.Now()
		err := try()
		pause := min(max(time.Since(began), time.Since(first)/partOfWaited, minRetryPause), maxRetryPause)
		if damage := c.opts.damage(); damage != nil && err != nil {
			return damage
		}
		var final finalError
		if err == nil || errors.As(err, &final) {
			return err
		}
		if ctx.Err() == nil || lastErr == nil {
			lastErr = err // an error of the context says less than the one before it
		}
		if msg := firstLine(lastErr); msg != last {
			last = msg
			c.opts.waiting(phase, msg)
			c.opts.Log.Info("waiting", "phase", phase, "for", msg)
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("time is up; %w", lastErr)
			}
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}
