// Webhook guards the lab's custom resources: a validating admission webhook over
// TLS that makes its own CA and tells the API server of it, as cert-manager's
// cainjector does for others. It is ready only once the API server knows the CA.
package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"atoll/test/labimages/internal/kube"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	flag.StringVar(&o.config, "config", "atolls.lab.atoll.dev", "name of the ValidatingWebhookConfiguration")
	flag.StringVar(&o.service, "service", "webhook", "name of the Service that leads here")
	flag.StringVar(&o.namespace, "namespace", "", "namespace of the Service (default the pod's own)")
	flag.StringVar(&o.addr, "addr", ":8443", "address of /validate, over TLS")
	flag.StringVar(&o.health, "health", ":8080", "address of /readyz")
	flag.Parse()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "webhook:", err)
		os.Exit(1)
	}
}

type options struct{ config, service, namespace, addr, health string }

func run(ctx context.Context, o options) error {
	client, err := kube.InCluster()
	if err != nil {
		return err
	}
	if o.namespace == "" {
		o.namespace = client.Namespace
	}
	host := o.service + "." + o.namespace + ".svc"
	ca, cert, err := newCertificate(host, time.Now())
	if err != nil {
		return fmt.Errorf("making certificate: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /validate", validate)
	hook := &http.Server{
		Addr: o.addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
	}
	var ready atomic.Bool
	health := &http.Server{Addr: o.health, Handler: readyz(&ready), ReadHeaderTimeout: 10 * time.Second}

	failed := make(chan error, 2)
	go func() { failed <- hook.ListenAndServeTLS("", "") }()
	go func() { failed <- health.ListenAndServe() }()
	go func() {
		if inject(ctx, client, o.config, ca, 2*time.Second) == nil {
			ready.Store(true)
			fmt.Println("ready: the API server knows the CA of", host)
		}
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		shutdown, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return hook.Shutdown(shutdown)
	}
}

func readyz(ready *atomic.Bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !ready.Load() {
			http.Error(w, "the API server does not know the CA yet", http.StatusServiceUnavailable)
		}
	})
}

// inject puts the CA into every entry of the configuration, trying until it is
// done or ctx ends: the configuration may come after its webhook.
func inject(ctx context.Context, client *kube.Client, config string, ca []byte, every time.Duration) error {
	for {
		err := injectOnce(ctx, client, config, ca)
		if err == nil {
			return nil
		}
		fmt.Fprintln(os.Stderr, "webhook: injecting CA:", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
	}
}

func injectOnce(ctx context.Context, client *kube.Client, config string, ca []byte) error {
	path := "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/" + config
	var c struct {
		Metadata struct{ ResourceVersion string }
		Webhooks []struct{ Name string }
	}
	if err := client.Do(ctx, http.MethodGet, path, "", nil, &c); err != nil {
		return err
	}
	if len(c.Webhooks) == 0 {
		return fmt.Errorf("%s has no webhooks", config)
	}
	type op struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value string `json:"value"`
	}
	// The test makes the numbers in the paths mean what was read above.
	patch := []op{{"test", "/metadata/resourceVersion", c.Metadata.ResourceVersion}}
	for i := range c.Webhooks {
		patch = append(patch, op{"add", fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), base64.StdEncoding.EncodeToString(ca)})
	}
	return client.Do(ctx, http.MethodPatch, path, "application/json-patch+json", patch, nil)
}
