package checks

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// certificate is what these checks read of cert-manager's Certificate.
type certificate struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		SecretName string   `json:"secretName"`
		DNSNames   []string `json:"dnsNames"`
	} `json:"spec"`
	Status certificateStatus `json:"status"`
}

type certificateStatus struct {
	Conditions []metav1.Condition `json:"conditions"`
	Revision   int                `json:"revision"`
}

func (c *certificate) ready() error {
	for _, cond := range c.Status.Conditions {
		if cond.Type == "Ready" && cond.Status == metav1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("certificate %s/%s is not ready: %+v", c.Metadata.Namespace, c.Metadata.Name, c.Status.Conditions)
}

// TestCertificates: cert-manager has issued every certificate of the stack, with a chain that
// verifies and a key that fits.
func TestCertificates(t *testing.T) {
	k := needCluster(t)
	var list struct{ Items []certificate }
	k.get(t, &list, "certificates.cert-manager.io", "--all-namespaces")
	names := map[string]bool{}
	for _, c := range list.Items {
		name := c.Metadata.Namespace + "/" + c.Metadata.Name
		names[name] = true
		if err := c.ready(); err != nil {
			t.Error(err)
			continue
		}
		if err := checkSecret(k.secret(t, c.Metadata.Namespace, c.Spec.SecretName), c.Spec.DNSNames); err != nil {
			t.Errorf("certificate %s: %v", name, err)
		}
	}
	if !names["istio-system/kubeflow-gateway"] {
		t.Errorf("no certificate for the gateway; there are %v", names)
	}
}

// webhooks is what these checks read of the two kinds of webhook configurations.
type webhooks struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Webhooks []struct {
		Name         string `json:"name"`
		ClientConfig struct {
			CABundle []byte `json:"caBundle"`
			Service  *struct {
				Namespace string `json:"namespace"`
				Name      string `json:"name"`
				Port      int    `json:"port"`
			} `json:"service"`
		} `json:"clientConfig"`
	} `json:"webhooks"`
}

// TestWebhookCertificates: each webhook shows a certificate that the API server takes.
func TestWebhookCertificates(t *testing.T) {
	k := needCluster(t)
	k.remove(t, "check-certificates")
	k.apply(t, "certificates.yaml")
	k.ready(t, "check-certificates")
	var list struct{ Items []webhooks }
	k.get(t, &list, "mutatingwebhookconfigurations,validatingwebhookconfigurations")
	checked := map[string]bool{}
	for _, config := range list.Items {
		for _, w := range config.Webhooks {
			service := w.ClientConfig.Service
			if service == nil {
				continue
			}
			name, port := service.Name+"."+service.Namespace+".svc", service.Port
			if port == 0 {
				port = 443
			}
			// Several webhooks are one service's.
			key := fmt.Sprint(name, port, string(w.ClientConfig.CABundle))
			if checked[key] {
				continue
			}
			checked[key] = true
			eventually(t, fmt.Sprintf("webhook %s of %s", w.Name, config.Metadata.Name), func() error {
				return k.shows(t, fmt.Sprintf("%s:%d", name, port), name, w.ClientConfig.CABundle)
			})
		}
	}
	if len(checked) == 0 {
		t.Error("no webhook")
	}
}

// TestRenewal: the gateway's certificate is renewed before its time, as cmctl renew does it,
// and the gateway serves the new one without a restart, with the key that it had.
func TestRenewal(t *testing.T) {
	k := needCluster(t)
	k.remove(t, "check-certificates")
	k.apply(t, "certificates.yaml")
	k.ready(t, "check-certificates")
	const namespace, name, address, host = "istio-system", "kubeflow-gateway",
		"istio-ingressgateway.istio-system.svc:443", "istio-ingressgateway.istio-system.svc"
	var before certificate
	k.get(t, &before, "certificates.cert-manager.io", "--namespace", namespace, name)
	if err := before.ready(); err != nil {
		t.Fatal(err)
	}
	old := k.secret(t, namespace, before.Spec.SecretName)
	eventually(t, "the gateway's certificate", func() error { return k.shows(t, address, host, old.Data["tls.crt"]) })

	status := map[string]any{"status": map[string]any{"conditions": append(before.Status.Conditions, metav1.Condition{
		Type: "Issuing", Status: metav1.ConditionTrue, Reason: "ManuallyTriggered", Message: "renewed by a check",
		LastTransitionTime: metav1.Now(), ObservedGeneration: before.Metadata.Generation,
	})}}
	patch, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	k.run(t, "patch", "certificates.cert-manager.io", "--namespace", namespace, name, "--subresource=status", "--type=merge", "--patch", string(patch))
	var renewed corev1.Secret
	eventually(t, "renewing the gateway's certificate", func() error {
		var now certificate
		k.get(t, &now, "certificates.cert-manager.io", "--namespace", namespace, name)
		renewed = k.secret(t, namespace, now.Spec.SecretName)
		if now.Status.Revision <= before.Status.Revision || bytes.Equal(renewed.Data["tls.crt"], old.Data["tls.crt"]) {
			return fmt.Errorf("it is still revision %d", now.Status.Revision)
		}
		return now.ready()
	})
	if err := checkSecret(renewed, before.Spec.DNSNames); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(renewed.Data["tls.key"], old.Data["tls.key"]) {
		t.Error("the renewed certificate has another key: who pinned the old one is locked out")
	}
	eventually(t, "the gateway serves the renewed certificate", func() error {
		return k.shows(t, address, host, renewed.Data["tls.crt"])
	})
}

func (k kubectl) secret(t *testing.T, namespace, name string) (s corev1.Secret) {
	t.Helper()
	k.get(t, &s, "secret", "--namespace", namespace, name)
	return s
}

// checkSecret verifies what cert-manager wrote: a chain up to the CA for every name, and a key
// that fits.
func checkSecret(s corev1.Secret, names []string) error {
	pair, err := tls.X509KeyPair(s.Data["tls.crt"], s.Data["tls.key"])
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, verify(pair.Certificate, name, s.Data["ca.crt"]))
	}
	return errors.Join(errs...)
}

// verify checks a chain for a server's name, against roots in PEM.
func verify(chain [][]byte, name string, roots []byte) error {
	if len(chain) == 0 {
		return errors.New("no certificate")
	}
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return fmt.Errorf("no root certificate in %q", roots)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	for _, der := range chain[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(cert)
	}
	_, err = leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, Intermediates: between, CurrentTime: time.Now()})
	return err
}

// shows checks the chain that a server within the cluster shows, against roots in PEM.
func (k kubectl) shows(t *testing.T, address, name string, roots []byte) error {
	t.Helper()
	out, err := k.probe(t, "check-certificates", "visitor", "certificates", address, name)
	if err != nil {
		return err
	}
	var chain [][]byte
	for block, rest := pem.Decode([]byte(out)); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	if err := verify(chain, name, roots); err != nil {
		return fmt.Errorf("%s shows a certificate that does not verify: %w", strings.TrimSuffix(address, ":443"), err)
	}
	return nil
}
