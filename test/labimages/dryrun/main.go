// Dryrun holds a plan against a real API server: it applies the plan's namespaces and
// definitions, waits until each definition is established, and sends every other object as
// a server-side dry run. So what the server would refuse is known without any of the images
// that the objects name.
//
//	dryrun PLAN…
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	ssautil "github.com/fluxcd/pkg/ssa/utils"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"atoll/bundle"
)

const (
	// timeout bounds it all. An emulated machine takes some minutes, a busy one more.
	timeout = 40 * time.Minute
	owner   = client.FieldOwner("dryrun")
	// parallel is how many objects are sent at once.
	parallel = 4
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dryrun:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, plans []string) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 50, 100
	config.WarningHandler = rest.NoWarnings{}
	c, err := client.New(config, client.Options{})
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, path := range plans {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var plan bundle.Plan
		if err := json.Unmarshal(data, &plan); err != nil {
			return fmt.Errorf("parsing %s: %w", path, err)
		}
		fmt.Println(path)
		if err := check(ctx, c, &plan, seen); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// check tells all that the API server refuses. What has been seen in another plan is not
// sent again.
func check(ctx context.Context, c client.Client, plan *bundle.Plan, seen map[string]bool) error {
	var first, rest []*unstructured.Unstructured
	left, again := 0, 0
	for _, p := range plan.Phases {
		objs, err := ssautil.ReadObjects(strings.NewReader(p.Manifest))
		if err != nil {
			return fmt.Errorf("phase %s: %w", p.Name, err)
		}
		for _, o := range objs {
			text, err := o.MarshalJSON()
			if err != nil {
				return fmt.Errorf("phase %s: %w", p.Name, err)
			}
			if seen[string(text)] {
				again++
				continue
			}
			seen[string(text)] = true
			switch o.GetKind() {
			case "Namespace", "CustomResourceDefinition":
				first = append(first, o)
			case "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration":
				left++ // with them, but without their servers, nothing would be accepted
			default:
				rest = append(rest, o)
			}
		}
	}
	var errs []error
	for _, o := range first {
		errs = append(errs, apply(ctx, c, o))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	definitions := 0
	for _, o := range first {
		if o.GetKind() == "CustomResourceDefinition" {
			definitions++
			errs = append(errs, established(ctx, c, o))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Printf("%d definitions are established\n", definitions)
	errs = make([]error, len(rest))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, o := range rest {
		g.Go(func() error {
			errs[i] = apply(ctx, c, o, client.DryRunAll)
			return nil
		})
	}
	if err := errors.Join(g.Wait(), errors.Join(errs...)); err != nil {
		return err
	}
	fmt.Printf("%d other objects are accepted; %d webhook configurations were left out, %d objects were seen before\n", len(rest), left, again)
	return nil
}

// established waits for a definition.
func established(ctx context.Context, c client.Client, o *unstructured.Unstructured) error {
	for {
		got := &unstructured.Unstructured{}
		got.SetGroupVersionKind(o.GroupVersionKind())
		if err := c.Get(ctx, client.ObjectKeyFromObject(o), got); err != nil {
			return fmt.Errorf("waiting for definition %s: %w", o.GetName(), err)
		}
		status, _ := got.Object["status"].(map[string]any)
		conditions, _ := status["conditions"].([]any) // null at first
		for _, v := range conditions {
			if cond, _ := v.(map[string]any); cond["type"] == "Established" && cond["status"] == "True" {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("definition %s is not established: %w", o.GetName(), ctx.Err())
		case <-time.After(time.Second):
		}
	}
}

// maxTries is how often an object is sent.
const maxTries = 10

// apply sends one object. What passes by itself is tried again: a definition that is not
// served yet, and a server that is too slow for its own time limit.
func apply(ctx context.Context, c client.Client, o *unstructured.Unstructured, opts ...client.ApplyOption) error {
	opts = append(opts, client.ForceOwnership, owner)
	for try := 1; ; try++ {
		err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(o.DeepCopy()), opts...)
		if err == nil {
			return nil
		}
		passes := apierrors.IsNotFound(err) || apierrors.IsTooManyRequests(err) || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err)
		if try == maxTries || !passes {
			return fmt.Errorf("%s %s/%s: %w", o.GetKind(), o.GetNamespace(), o.GetName(), err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}
