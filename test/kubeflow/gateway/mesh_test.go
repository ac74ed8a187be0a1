package gateway

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	istiodIP  = "10.0.0.2"
	gatewayIP = "10.0.0.3"
	httpPort  = gatewayIP + ":8080" // ports 80 and 443 of the node
	httpsPort = gatewayIP + ":8443"
)

// A mesh is a gateway that runs, with all that is behind it.
type mesh struct {
	*stackSet
	t     *testing.T        // that it runs for
	dir   string            // has config/ and mesh, which istiod watches
	kube  string            // a kubeconfig for istiod
	ip    map[string]string // of services, by their names
	echo  *echo
	procs map[string]*exec.Cmd
}

// startMesh runs the gateway of a stack, until the test ends.
func startMesh(t *testing.T, s *stackSet) *mesh {
	t.Helper()
	m := &mesh{stackSet: s, t: t, dir: t.TempDir(), ip: map[string]string{}, echo: &echo{}, procs: map[string]*exec.Cmd{}}
	m.fitLab(t)
	cluster := m.services(t)
	m.kube = serveKube(t, m.dir, cluster)
	mustMkdir(t, filepath.Join(m.dir, "config"))
	m.writeConfig(t)
	m.startSignIn(t)
	m.startGateway(t)
	return m
}

// startGateway runs istiod and the gateway, and waits until it listens.
func (m *mesh) startGateway(t *testing.T) {
	t.Helper()
	m.startIstio(t)
	m.await(t, "the gateway", func() error {
		_, err := tls.Dial("tcp", httpsPort, &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			_, err = net.Dial("tcp", httpPort)
		}
		return err
	})
}

// fitLab changes what cannot be the same without a cluster.
func (m *mesh) fitLab(t *testing.T) {
	t.Helper()
	// The certificate is cert-manager's on a node, and istiod hands it out to gateways that
	// have shown who they are.
	cert, key := filepath.Join(m.dir, "tls.crt"), filepath.Join(m.dir, "tls.key")
	writeCertificate(t, cert, key)
	for _, gateway := range m.of("Gateway") {
		servers, _, _ := unstructured.NestedSlice(gateway.Object, "spec", "servers")
		for _, s := range servers {
			server := s.(map[string]any)
			// A pod has its ports for itself.
			server["bind"] = gatewayIP
			if tls, ok := server["tls"].(map[string]any); ok && tls["credentialName"] != nil {
				delete(tls, "credentialName")
				tls["serverCertificate"], tls["privateKey"] = cert, key
			}
		}
		if err := unstructured.SetNestedSlice(gateway.Object, servers, "spec", "servers"); err != nil {
			t.Fatal(err)
		}
	}
	// The servers here have no certificates of the mesh. See writeConfig too.
	replace(t, m.find(t, "ConfigMap", "istio-system", "istio"), "rootNamespace:", "enableAutoMtls: false\nrootNamespace:", "data", "mesh")
	// Dex keeps what it knows in the API server, its keys too, over restarts.
	dex := m.find(t, "ConfigMap", "auth", "dex")
	replace(t, dex, "type: kubernetes", "type: sqlite3", "data", "config.yaml")
	replace(t, dex, "inCluster: true", "file: "+filepath.Join(m.dir, "dex.db"), "data", "config.yaml")
}

// services gives each Service an address of this machine and its name, runs a server that
// shows what it gets where one is published, and returns what istiod wants to see.
func (m *mesh) services(t *testing.T) map[string][]*unstructured.Unstructured {
	t.Helper()
	published := map[string]bool{}
	for _, vs := range m.of("VirtualService") {
		for _, http := range items(vs.Object, "spec", "http") {
			for _, route := range items(http, "route") {
				host, _, _ := unstructured.NestedString(route, "destination", "host")
				published[host] = true
			}
		}
	}
	hosts := &strings.Builder{}
	fmt.Fprintf(hosts, "127.0.0.1 localhost\n%s istiod.istio-system.svc\n", istiodIP)
	cluster := map[string][]*unstructured.Unstructured{"services": m.of("Service"), "namespaces": m.of("Namespace")}
	for i, service := range m.of("Service") {
		name, namespace := service.GetName(), service.GetNamespace()
		host := name + "." + namespace + ".svc.cluster.local"
		ip := fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)
		if name == "istio-ingressgateway" {
			ip = gatewayIP
		}
		m.ip[host] = ip
		fmt.Fprintf(hosts, "%s %s\n", ip, host)
		service.Object["spec"].(map[string]any)["clusterIP"] = ip
		var ports []any
		for _, p := range items(service.Object, "spec", "ports") {
			port := p["port"]
			if ip == gatewayIP {
				port = p["targetPort"]
			}
			ports = append(ports, map[string]any{"name": p["name"], "port": port, "protocol": "TCP"})
			if published[host] && !signIn[host] {
				m.echo.serve(t, host, fmt.Sprintf("%s:%v", ip, port))
			}
		}
		cluster["endpointslices"] = append(cluster["endpointslices"], &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
			"metadata":  map[string]any{"name": name, "namespace": namespace, "labels": map[string]any{"kubernetes.io/service-name": name}},
			"endpoints": []any{map[string]any{"addresses": []any{ip}, "conditions": map[string]any{"ready": true}}},
			"ports":     ports,
		}})
		delete(published, host)
	}
	if len(published) > 0 {
		t.Errorf("published, but there is no such Service: %v", published)
	}
	deployment := m.find(t, "Deployment", "istio-system", "istio-ingressgateway")
	pod, _, _ := unstructured.NestedMap(deployment.Object, "spec", "template")
	pod["apiVersion"], pod["kind"] = "v1", "Pod"
	pod["status"] = map[string]any{"podIP": gatewayIP, "podIPs": []any{map[string]any{"ip": gatewayIP}}, "phase": "Running",
		"conditions": []any{map[string]any{"type": "Ready", "status": "True"}}}
	gateway := &unstructured.Unstructured{Object: pod}
	gateway.SetName("istio-ingressgateway-0")
	gateway.SetNamespace("istio-system")
	cluster["pods"] = append(cluster["pods"], gateway)
	file := filepath.Join(m.dir, "hosts")
	if err := os.WriteFile(file, []byte(hosts.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(file, "/etc/hosts", "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount("/etc/hosts", syscall.MNT_DETACH) })
	return cluster
}

// writeConfig writes what istiod reads: the objects of Istio, and the mesh's configuration.
func (m *mesh) writeConfig(t *testing.T) {
	t.Helper()
	var objects []*unstructured.Unstructured
	for _, o := range m.objects {
		group := o.GroupVersionKind().Group
		if group != "networking.istio.io" && group != "security.istio.io" {
			continue
		}
		if mode, _, _ := unstructured.NestedString(o.Object, "spec", "trafficPolicy", "tls", "mode"); mode == "ISTIO_MUTUAL" {
			continue
		}
		objects = append(objects, o)
	}
	for file, data := range map[string][]byte{
		"config/stack.yaml": encode(t, objects),
		"mesh":              []byte(text(t, m.find(t, "ConfigMap", "istio-system", "istio"), "data", "mesh")),
	} {
		temp, file := filepath.Join(m.dir, "new"), filepath.Join(m.dir, file)
		if err := os.WriteFile(temp, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temp, file); err != nil {
			t.Fatal(err)
		}
	}
}

// startIstio runs istiod, with the switches that an Envoy without Istio's own filters
// needs, and the gateway's agent, which runs Envoy.
func (m *mesh) startIstio(t *testing.T) {
	t.Helper()
	m.run(t, "pilot-discovery", pod{dir: m.dir, env: map[string]string{
		"PILOT_ENABLE_METADATA_EXCHANGE": "false",
		"PILOT_ENABLE_ALPN_FILTER":       "false",
		"ENABLE_CA_SERVER":               "false",
		"INJECT_ENABLED":                 "false",
		"POD_NAME":                       "istiod-0",
		"POD_NAMESPACE":                  "istio-system",
	}, args: []string{"discovery", "--configDir", "config", "--meshConfig", "mesh", "--kubeconfig", m.kube,
		"--httpAddr", istiodIP + ":8080", "--httpsAddr", "", "--secureGRPCAddr", "", "--grpcAddr", istiodIP + ":15010", "--ctrlz_port", "0"}})
	envoy, err := program("envoy")
	if err != nil {
		t.Fatal(err)
	}
	template, err := program(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(m.dir, "proxy")
	mustMkdir(t, dir)
	m.run(t, "pilot-agent", pod{dir: dir, env: map[string]string{
		"INSTANCE_IP": gatewayIP, "POD_NAME": "istio-ingressgateway-0", "POD_NAMESPACE": "istio-system",
		"SERVICE_ACCOUNT": "istio-ingressgateway-service-account", "FILE_MOUNTED_CERTS": "true",
		"ISTIO_META_CLUSTER_ID": "Kubernetes", "ISTIO_METAJSON_LABELS": `{"app":"istio-ingressgateway","istio":"ingressgateway"}`,
		"PROXY_CONFIG": fmt.Sprintf(`{"discoveryAddress":"%s:15010","controlPlaneAuthPolicy":"NONE","binaryPath":%q,"configPath":%q,"proxyBootstrapTemplatePath":%q,"proxyStatsMatcher":{"inclusionSuffixes":["jwks_fetch_failed"]}}`,
			istiodIP, envoy, dir, template),
	}, args: []string{"proxy", "router", "--domain", "istio-system.svc.cluster.local", "--proxyLogLevel=warning"}})
}

// run starts a program of a pod; what it prints is told when the test fails.
func (m *mesh) run(t *testing.T, name string, p pod) {
	t.Helper()
	path, err := program(name)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(m.dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + m.dir}
	for k, v := range p.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	m.procs[name] = cmd
	m.t.Cleanup(func() {
		m.stop(name)
		log.Close()
		if m.t.Failed() {
			data, _ := os.ReadFile(log.Name())
			m.t.Logf("the end of what %s printed:\n%s", name, data[max(0, len(data)-4096):])
		}
	})
}

// stop ends a program and what it has started.
func (m *mesh) stop(name string) {
	if cmd := m.procs[name]; cmd != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		delete(m.procs, name)
	}
}

// await returns when a condition holds.
func (m *mesh) await(t *testing.T, what string, ok func() error) {
	t.Helper()
	var err error
	for range 600 {
		if err = ok(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("waiting for %s: %v", what, err)
}

// admin asks the gateway's Envoy about itself.
func admin(t *testing.T, path string) []byte {
	t.Helper()
	resp, err := http.Get("http://localhost:15000" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("asking Envoy for %s: %s, %v", path, resp.Status, err)
	}
	return data
}

func writeCertificate(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"node"}, IPAddresses: []net.IP{net.ParseIP(gatewayIP)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		var buf bytes.Buffer
		pem.Encode(&buf, block)
		if err := os.WriteFile(file, buf.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
