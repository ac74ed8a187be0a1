package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atoll/test/labimages/internal/kube"
)

// TestValidate asks over TLS, trusting only the CA that the webhook hands out.
func TestValidate(t *testing.T) {
	ca, cert, err := newCertificate("webhook.lab.svc", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(validate))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.StartTLS()
	defer srv.Close()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "webhook.lab.svc"}}}
	for object, want := range map[string]bool{
		`{"kind":"Atoll","spec":{"size":3}}`:   true,
		`{"kind":"Atoll","spec":{"size":0}}`:   false,
		`{"kind":"Atoll","spec":{"size":-1}}`:  false,
		`{"kind":"Atoll","spec":{}}`:           false,
		`{"kind":"Atoll","spec":{"size":"x"}}`: false,
		`{"kind":"Reef"}`:                      true,
	} {
		kind := "Atoll"
		if strings.Contains(object, "Reef") {
			kind = "Reef"
		}
		resp, err := client.Post(srv.URL+"/validate", "application/json",
			strings.NewReader(`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u1","kind":{"kind":"`+kind+`"},"object":`+object+`}}`))
		if err != nil {
			t.Fatal(err)
		}
		var got review
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got.Response == nil || got.Response.UID != "u1" || got.Response.Allowed != want || !want && got.Response.Status.Message == "" {
			t.Errorf("%s: got %+v, want allowed %v", object, got.Response, want)
		}
	}
	resp, err := client.Post(srv.URL+"/validate", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("no review: got %s", resp.Status)
	}
}

func TestInject(t *testing.T) {
	var patch string
	asked := 0
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		switch {
		case r.URL.Path != "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/conf" || asked == 1:
			http.Error(w, "not yet", http.StatusNotFound)
		case r.Method == http.MethodGet:
			io.WriteString(w, `{"metadata":{"resourceVersion":"7"},"webhooks":[{"name":"a"},{"name":"b"}]}`)
		default:
			data, _ := io.ReadAll(r.Body)
			patch = r.Header.Get("Content-Type") + " " + string(data)
			io.WriteString(w, "{}")
		}
	}))
	defer srv.Close()
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	for name, data := range map[string]string{"ca.crt": string(ca), "namespace": "lab", "token": "t"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	client, err := kube.New(srv.URL, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := inject(t.Context(), client, "conf", []byte("CA"), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	want := `application/json-patch+json [{"op":"test","path":"/metadata/resourceVersion","value":"7"},` +
		`{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"Q0E="},{"op":"add","path":"/webhooks/1/clientConfig/caBundle","value":"Q0E="}]`
	if patch != want {
		t.Errorf("patch is\n%s, want\n%s", patch, want)
	}
}
