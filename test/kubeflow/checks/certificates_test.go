package checks

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
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

// client is how the API server calls a webhook or an extension of its own.
type client struct {
	CABundle []byte `json:"caBundle"`
	Service  *struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
		Port      int    `json:"port"`
	} `json:"service"`
}

// called is what these checks read of the objects that have such clients: one kind has
// webhooks, another the conversion of a kind of objects, the third is a client itself.
type called struct {
	Kind     string            `json:"kind"`
	Metadata metav1.ObjectMeta `json:"metadata"`
	Webhooks []struct {
		ClientConfig client `json:"clientConfig"`
	} `json:"webhooks"`
	Spec struct {
		client
		Conversion struct {
			Webhook struct {
				ClientConfig client `json:"clientConfig"`
			} `json:"webhook"`
		} `json:"conversion"`
	} `json:"spec"`
}

// clients are those with a Service.
func (c *called) clients() (list []client) {
	all := []client{c.Spec.client, c.Spec.Conversion.Webhook.ClientConfig}
	for _, w := range c.Webhooks {
		all = append(all, w.ClientConfig)
	}
	for _, w := range all {
		if w.Service != nil {
			list = append(list, w)
		}
	}
	return list
}

func TestClients(t *testing.T) {
	for object, want := range map[string]string{
		`{"webhooks": [{"clientConfig": {"url": "https://a"}}, {"clientConfig": {"service": {"namespace": "n", "name": "a", "port": 8443}}}]}`: "a.n.svc:8443",
		`{"spec": {"conversion": {"webhook": {"clientConfig": {"service": {"namespace": "n", "name": "b"}}}}}}`:                                "b.n.svc:443",
		`{"spec": {"service": {"namespace": "n", "name": "c"}}}`:                                                                               "c.n.svc:443",
		`{"spec": {"conversion": {"strategy": "None"}}}`:                                                                                       "",
	} {
		var c called
		if err := json.Unmarshal([]byte(object), &c); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, client := range c.clients() {
			_, address := client.address()
			got += address
		}
		if got != want {
			t.Errorf("%s: %q, want %q", object, got, want)
		}
	}
}

// injected is the annotation that has cert-manager put the CA of a Certificate, by its
// namespace and name, into an object.
const injected = "cert-manager.io/inject-ca-from"

// TestWebhookCertificates: each webhook shows a certificate that the API server takes, and so
// does what converts objects or extends the API, where its CA comes from cert-manager.
func TestWebhookCertificates(t *testing.T) {
	k := needCluster(t)
	k.remove(t, "check-certificates")
	k.apply(t, "certificates.yaml")
	k.ready(t, "check-certificates")
	checked, annotated := map[string]bool{}, 0
	for _, resource := range []string{
		"mutatingwebhookconfigurations", "validatingwebhookconfigurations", "customresourcedefinitions", "apiservices",
	} {
		var list struct{ Items []called }
		k.get(t, &list, resource)
		for _, object := range list.Items {
			name := object.Kind + " " + object.Metadata.Name
			from := object.Metadata.Annotations[injected]
			if from != "" {
				annotated++
				t.Logf("%s has its CA from certificate %s", name, from)
				if err := k.checkInjected(t, from, object.clients()); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			} else if len(object.Webhooks) == 0 {
				continue
			}
			for _, c := range object.clients() {
				host, address := c.address()
				// Several webhooks are one service's.
				key := address + string(c.CABundle)
				if checked[key] {
					continue
				}
				checked[key] = true
				eventually(t, name, func() error { return k.shows(t, address, host, c.CABundle) })
			}
		}
	}
	if len(checked) == 0 {
		t.Error("no webhook")
	}
	if annotated == 0 && os.Getenv(fullVariable) != "" {
		t.Errorf("nothing has the annotation %s", injected)
	}
}

// address is the name that the client wants a certificate for, and where it connects to.
func (c client) address() (host, address string) {
	host = c.Service.Name + "." + c.Service.Namespace + ".svc"
	return host, fmt.Sprintf("%s:%d", host, cmp.Or(c.Service.Port, 443))
}

// checkInjected checks that a certificate is there and ready, and that what was issued is
// taken by each client of an object that has its CA.
func (k kubectl) checkInjected(t *testing.T, from string, clients []client) error {
	t.Helper()
	namespace, name, _ := strings.Cut(from, "/")
	out, err := k.try(t.Context(), "", "get", "certificates.cert-manager.io", "--namespace", namespace, name, "-o", "json")
	if err != nil {
		return err
	}
	var c certificate
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		return err
	}
	if err := c.ready(); err != nil {
		return err
	}
	s := k.secret(t, namespace, c.Spec.SecretName)
	pair, err := tls.X509KeyPair(s.Data["tls.crt"], s.Data["tls.key"])
	if err != nil {
		return fmt.Errorf("certificate %s: %w", from, err)
	}
	for _, client := range clients {
		host, _ := client.address()
		if err := verify(pair.Certificate, host, client.CABundle); err != nil {
			return fmt.Errorf("certificate %s, against the CA that was put in: %w", from, err)
		}
	}
	return nil
}

// TestInjectedCA: a CA that did not sign what was issued is refused, and so is a certificate
// that is not ready, or is not there.
func TestInjectedCA(t *testing.T) {
	issued, other := selfSigned(t, "a.n.svc"), selfSigned(t, "a.n.svc")
	secret, err := json.Marshal(issued)
	if err != nil {
		t.Fatal(err)
	}
	const object = `{"metadata": {"namespace": "n", "name": "c"}, "spec": {"secretName": "s"}, "status": {"conditions": [{"type": "Ready", "status": "READY"}]}}`
	for _, c := range []struct {
		what, ready string
		ca          []byte
		ok          bool
	}{
		{"its own", "True", issued.Data["tls.crt"], true},
		{"another", "True", other.Data["tls.crt"], false},
		{"none yet", "True", nil, false},
		{"not ready", "False", issued.Data["tls.crt"], false},
		{"not there", "", issued.Data["tls.crt"], false},
	} {
		// A kubectl that knows two objects.
		script := fmt.Sprintf("case $* in *certificates*) test -n '%s' && echo '%s';; *secret*) echo '%s';; esac",
			c.ready, strings.Replace(object, "READY", c.ready, 1), secret)
		var o called
		if err := json.Unmarshal([]byte(`{"webhooks": [{"clientConfig": {"service": {"namespace": "n", "name": "a"}}}]}`), &o); err != nil {
			t.Fatal(err)
		}
		clients := o.clients()
		clients[0].CABundle = c.ca
		if err := (kubectl{"sh", "-c", script, "kubectl"}).checkInjected(t, "n/c", clients); (err == nil) != c.ok {
			t.Errorf("a CA that is %s: %v", c.what, err)
		}
	}
}

// selfSigned makes the Secret of a certificate that is its own CA.
func selfSigned(t *testing.T, name string) corev1.Secret {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return corev1.Secret{Data: map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}}
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
