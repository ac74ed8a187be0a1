package firstboot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// labK3s is where "make lab-k3s" puts the lab k3s, whose parts make a control plane here.
const labK3s = "../../build/k3s/k3s"

// controlPlane is a real etcd, API server and controller manager, with a node that this
// test plays: it runs no pods, the test says how they are.
type controlPlane struct {
	kubeconfig string
	core       kubernetes.Interface
	running    func() []corev1.Pod // what the node's kubelet says it runs
	ca         []byte              // some CA, PEM
}

// nodeAddress is the played node's, the same as a real node's: the API server calls no
// kubelet on a loopback address.
const nodeAddress = "203.0.113.254"

// isolated runs a test in a network namespace of its own, which has nodeAddress, and
// where no port is taken and nothing can be reached. It gives false to the process that
// only waited for that one, and skips the test where there is no lab k3s.
func isolated(t *testing.T) bool {
	t.Helper()
	const inside = "ATOLL_TEST_ISOLATED"
	if os.Getenv(inside) != "" {
		return true
	}
	if testing.Short() {
		t.Skip("starts a control plane: half a minute")
	}
	if _, err := os.Stat(labK3s); err != nil {
		t.Skip("no lab k3s: make lab-k3s")
	}
	const setUp = "ip link set lo up && ip addr add " + nodeAddress + "/32 dev lo && exec \"$0\" \"$@\""
	if out, err := exec.Command("unshare", "-rn", "sh", "-c", setUp, "true").CombinedOutput(); err != nil {
		t.Skipf("no network namespace of our own: %v: %s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "-rn", "sh", "-c", setUp, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

// startControlPlane starts it.
func startControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	dir := t.TempDir()
	tls := newCerts(t, dir)
	port := freePort(t)
	address := "https://127.0.0.1:" + strconv.Itoa(port)
	put(t, dir, "tokens", "secret,admin,admin,system:masters\n")
	kubeconfig := filepath.Join(dir, "k3s.yaml")
	put(t, dir, "k3s.yaml", fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: x,
clusters: [{name: x, cluster: {server: %q, insecure-skip-tls-verify: true}}],
users: [{name: x, user: {token: secret}}], contexts: [{name: x, context: {cluster: x, user: x}}]}`, address))

	socket := filepath.Join(dir, "etcd.sock")
	start(t, dir, "etcd", filepath.Join(dir, "etcd"), socket)
	start(t, dir, "kube-apiserver", "--etcd-servers=unix://"+socket,
		"--cert-dir="+filepath.Join(dir, "apiserver"), "--bind-address=127.0.0.1", "--advertise-address="+nodeAddress, "--secure-port="+strconv.Itoa(port),
		"--token-auth-file="+filepath.Join(dir, "tokens"), "--authorization-mode=RBAC", "--service-cluster-ip-range=10.43.0.0/16",
		"--kubelet-client-certificate="+tls+"/server-client.crt", "--kubelet-client-key="+tls+"/server-client.key",
		"--service-account-issuer=https://x", "--service-account-key-file="+tls+"/server-client.key",
		"--service-account-signing-key-file="+tls+"/server-client.key")
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	core, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	cp := &controlPlane{kubeconfig: kubeconfig, core: core, ca: []byte(get(t, tls, "server-ca.crt")), running: func() []corev1.Pod { return nil }}
	until(t, "API server", func() error { return core.RESTClient().Get().AbsPath("/readyz").Do(t.Context()).Error() })
	start(t, dir, "kube-controller-manager", "--kubeconfig="+kubeconfig, "--leader-elect=false", "--secure-port=0",
		"--use-service-account-credentials=false", "--service-account-private-key-file="+tls+"/server-client.key")
	until(t, "controllers", func() error {
		_, err := core.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	cp.playNode(t)
	listener, err := net.Listen("tcp", WritableAddr)
	if err != nil {
		t.Fatal(err)
	}
	registry := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })}
	go registry.Serve(listener) // until the test ends
	t.Cleanup(func() { registry.Close() })
	return cp
}

// start runs a part of the lab k3s until the test ends.
func start(t *testing.T, dir, part string, args ...string) {
	t.Helper()
	logFile, err := os.Create(filepath.Join(dir, part+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(labK3s, append([]string{part}, args...)...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		logFile.Close()
		if t.Failed() {
			data, _ := os.ReadFile(logFile.Name())
			t.Logf("%s: %s", part, strings.Join(tail(string(data), 10), "\n"))
		}
	})
}

func until(t *testing.T, what string, ok func() error) {
	t.Helper()
	var err error
	for range 600 {
		if err = ok(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s: %v", what, err)
}

// playNode registers a ready node, with a kubelet that answers what runs on it.
func (cp *controlPlane) playNode(t *testing.T) {
	t.Helper()
	kubelet := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.URL.Path == "/runningpods/":
			json.NewEncoder(w).Encode(corev1.PodList{Items: cp.running()})
		case strings.HasPrefix(req.URL.Path, "/containerLogs/"):
			fmt.Fprintln(w, "panic: the container's last words")
		default:
			http.NotFound(w, req)
		}
	}))
	listener, err := net.Listen("tcp", nodeAddress+":0") // nobody else is in this network
	if err != nil {
		t.Fatal(err)
	}
	kubelet.Listener.Close()
	kubelet.Listener = listener
	kubelet.StartTLS()
	t.Cleanup(kubelet.Close)
	at, err := url.Parse(kubelet.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(at.Port())
	if err != nil {
		t.Fatal(err)
	}
	id, err := os.ReadFile(bootIDFile)
	if err != nil {
		t.Fatal(err)
	}
	nodes := cp.core.CoreV1().Nodes()
	if _, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "played"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	status := corev1.NodeStatus{
		NodeInfo:        corev1.NodeSystemInfo{BootID: strings.TrimSpace(string(id))},
		Conditions:      []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}},
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: nodeAddress}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(port)}},
	}
	until(t, "node", func() error { // controllers write to it too
		n, err := nodes.Get(t.Context(), "played", metav1.GetOptions{})
		if err != nil {
			return err
		}
		n.Status = status
		_, err = nodes.UpdateStatus(t.Context(), n, metav1.UpdateOptions{})
		return err
	})
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// newCerts makes what the API server wants: a CA, and one certificate for server and client.
func newCerts(t *testing.T, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	put(t, dir, "tls/server-ca.crt", cert)
	put(t, dir, "tls/server-client.crt", cert)
	put(t, dir, "tls/server-client.key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})))
	return filepath.Join(dir, "tls")
}
