package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"atoll/test/guest"
	"atoll/test/netns"
)

// Addresses of the network that the lab node and its neighbour share.
const (
	nodeAddr      = "198.51.100.2"
	nodeAddr6     = "fd00:a7::2"
	neighbourAddr = "198.51.100.1/24"
)

// neighbourPorts are scanned: all that a node of ours or of Kubernetes has or may have.
const neighbourPorts = "1-1024,2379-2382,5000-5001,6443-6444,8080,8443,8472,9099-9100,9180,10248-10260,30000-30100,32767"

// What the site of the lab node keeps secret: the hash of a password, and a file.
const (
	siteHash   = "$6$7c1d0a9be2$2m9yQ0o3n7eYw1l8b6Xk5V4u3T2s1R0q9P8o7N6m5L4k3J2i1H0g9F8e7D6c5B4a3Z2y1X0w9V8u7T6s5R4q3"
	siteSecret = "secret-of-the-site-5e8d41"
)

// neighbour is a machine beside the lab node, and someone who may log in to that.
type neighbour struct {
	ns    netns.Namespace
	probe string // program
	path  string // PATH with a QEMU that gives the node a card on the shared network
	key   *guest.Key
}

// newNeighbour returns nil where no network can be made; the log says why.
func newNeighbour(t *testing.T, dir string) *neighbour {
	t.Helper()
	ns, err := netns.New(t)
	if err != nil {
		t.Logf("the lab node has no neighbour: %v", err)
		return nil
	}
	for _, args := range [][]string{
		{"tuntap", "add", "dev", "tap0", "mode", "tap"},
		{"addr", "add", neighbourAddr, "dev", "tap0"},
		{"addr", "add", "fd00:a7::1/64", "dev", "tap0", "nodad"},
		{"link", "set", "tap0", "up"},
		{"route", "add", "10.42.0.0/15", "via", nodeAddr},     // pods and services
		{"route", "add", "203.0.113.254/32", "via", nodeAddr}, // where pods reach the node
	} {
		if err := ns.Run("ip", args...); err != nil {
			t.Logf("the lab node has no neighbour: %v", err)
			return nil
		}
	}
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	script := fmt.Sprintf(`#!/bin/sh
for arg; do
	shift
	[ "$last" != -nic ] || arg=tap,ifname=tap0,script=no,downscript=no,model=virtio-net-pci
	set -- "$@" "$arg"
	last=$arg
done
exec ip netns exec %s %s "$@"
`, ns.Name, qemu)
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "qemu-system-x86_64"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	n := &neighbour{ns: ns, probe: filepath.Join(dir, "probe"), path: bin + ":" + os.Getenv("PATH"), key: guest.NewKey(t)}
	run(t, "go", "build", "-o", n.probe, "atoll/test/labimages/probe")
	return n
}

// define adds to the lab's definition, which is in the folder, what the neighbour needs.
func (n *neighbour) define(t *testing.T, dir string, definition []byte) []byte {
	t.Helper()
	overlay, err := filepath.Abs("lab/ports")
	if err != nil {
		t.Fatal(err)
	}
	butane := fmt.Sprintf(`variant: fcos
version: 1.4.0
passwd:
  users:
    - name: carol
      password_hash: %q
storage:
  files:
    - path: /etc/site-secret
      mode: 0600
      contents: {inline: %s}
`, siteHash, siteSecret)
	if err := os.WriteFile(filepath.Join(dir, "site.bu"), []byte(butane), 0o600); err != nil {
		t.Fatal(err)
	}
	host, found := "\nhost:\n", bytes.Contains(definition, []byte("\nhost:\n  users:\n    - name: lab\n"))
	if !found {
		t.Fatalf("the lab's definition has no user lab:\n%s", definition)
	}
	definition = bytes.Replace(definition, []byte(host), fmt.Appendf(nil, `
overlays: [%q]
ignition: {butane: site.bu}
host:
  network: {interface: "en*", addresses: [%s/24, "%s/64"]}
`, overlay, nodeAddr, nodeAddr6), 1)
	return bytes.Replace(definition, []byte("- name: lab\n"), fmt.Appendf(nil, "- name: lab\n      sshAuthorizedKeys: [%q]\n", n.key.Authorized()), 1)
}

// during makes the visit while the command, a boot of the node, runs, which ends only
// once the gate was opened.
func (n *neighbour) during(t *testing.T, boot *exec.Cmd) (out []byte, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	visited := make(chan struct{})
	go func() {
		defer close(visited)
		if n.wait(ctx) {
			n.visit(t)
			if _, _, err := n.http("POST", ":80/open", ""); err != nil {
				t.Errorf("opening the gate: %v", err)
			}
		}
	}()
	boot.Env = append(boot.Env, "PATH="+n.path)
	out, err = boot.CombinedOutput()
	cancel()
	<-visited
	return out, err
}

// wait waits until the node waits for the gate and for nothing else. In the second boot the
// gate is there before the phases ahead of it are over.
func (n *neighbour) wait(ctx context.Context) bool {
	for ctx.Err() == nil {
		code, _, err := n.http("GET", ":80/readyz", "")
		if err == nil && code == http.StatusServiceUnavailable {
			_, status, err := n.http("GET", ":9180/status", "")
			if err == nil && strings.Contains(status, `"name":"overlays","state":"running"`) {
				return true
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return false
}

// visit checks what the neighbour, and who logs in, can see.
func (n *neighbour) visit(t *testing.T) {
	for _, args := range [][]string{
		{"-tcp", neighbourPorts, "-want", "22,80,9180", nodeAddr},
		{"-tcp", neighbourPorts, "-want", "22,9180", nodeAddr6}, // hostPorts are of IPv4 alone here
		{"-tcp", "443", "10.43.0.1"},                            // the API server's service
		{"-tcp", "5000-5001,6443", "203.0.113.254"},
	} {
		out, err := n.ns.Command(n.probe, append([]string{"scan"}, args...)...).CombinedOutput()
		t.Logf("neighbour: %s", out)
		if err != nil {
			t.Errorf("neighbour: %v\n%s", err, out)
		}
	}

	code, body, err := n.http("GET", ":9180/status", "")
	if err != nil || code != 200 || !strings.Contains(body, `"state":"running"`) || strings.Contains(body, "message") {
		t.Errorf("status without a token: %d, %v\n%s", code, err, body)
	}
	token := strings.TrimSpace(n.ssh(t, "sudo atoll node secret status-token"))
	code, body, err = n.http("GET", ":9180/status", token)
	if err != nil || code != 200 || !strings.Contains(body, `"message":"Deployment atoll-ports/gate`) {
		t.Errorf("status with the token: %d, %v\n%s", code, err, body)
	}
	if code, _, err := n.http("GET", ":9180/status", "x"+token); err != nil || code != http.StatusUnauthorized {
		t.Errorf("status with a wrong token: %d, %v", code, err)
	}
	if out := n.ssh(t, "atoll node status 2>&1; sudo atoll node status"); !strings.Contains(out, "hint: it may quote logs") || !strings.Contains(out, "Deployment atoll-ports/gate") {
		t.Errorf("atoll node status, and by root:\n%s", out)
	}
	if out := n.ssh(t, "ps -o user:20= -C atoll | tr -d ' ' | sort -u; systemctl is-active atoll-firewall atoll-status atoll-registry-writable; systemctl --failed --plain --no-legend list-units 'atoll-*'"); out != "atoll-registry\natoll-status\nroot\nactive\nactive\nactive\n" {
		t.Errorf("users of atoll's processes, and its units:\n%s", out)
	}
	out := n.ssh(t, "sudo atoll node registry gc; sudo stat -c '%U:%G %a' /var/lib/rancher/registry /var/lib/rancher/registry/lock /run/atoll/registry.kubeconfig /run/atoll/registry-password")
	if freed, rest, _ := strings.Cut(out, "\n"); !strings.HasPrefix(freed, "freed ") ||
		rest != "atoll-registry:atoll-registry 700\natoll-registry:atoll-registry 600\nroot:atoll-registry 640\nroot:atoll-registry 640\n" {
		t.Errorf("a collection in the registry, and whose its files are:\n%s", out)
	}
	n.noSecrets(t)
}

// noSecrets looks everywhere on the node where a secret of the site does not belong.
func (n *neighbour) noSecrets(t *testing.T) {
	if out := n.ssh(t, "sudo cat /etc/shadow /etc/site-secret"); !strings.Contains(out, "carol:"+siteHash+":") || !strings.HasSuffix(out, siteSecret) {
		t.Errorf("the site's user and file are not there:\n%s", out)
	}
	for _, secret := range []string{siteHash[:13], siteSecret} {
		// It goes there in two parts and is in no argument: the search must not find itself.
		search := fmt.Sprintf(`sudo sh -c 'umask 077
{ printf %%s "%s"; echo "%s"; } >/dev/shm/secret
journalctl --sync
journalctl --all --merge --output=export | grep -aF -f /dev/shm/secret
grep -rlaF -f /dev/shm/secret /run /var/log /boot /tmp /etc/atoll /etc/.ignition-result.json
grep -laF -f /dev/shm/secret /proc/[0-9]*/cmdline /proc/[0-9]*/environ
dmesg | grep -F -f /dev/shm/secret
rm /dev/shm/secret' 2>/dev/null`, strings.ReplaceAll(secret[:8], "$", `\$`), strings.ReplaceAll(secret[8:], "$", `\$`))
		if out := n.ssh(t, search); out != "" {
			t.Errorf("%s is on the node where it does not belong:\n%s", secret, out)
		}
	}
}

// http asks the node; a token goes along unless it is empty.
func (n *neighbour) http(method, what, token string) (code int, body string, err error) {
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: n.dial, DisableKeepAlives: true}}
	req, err := http.NewRequest(method, "http://"+nodeAddr+what, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

func (n *neighbour) dial(_ context.Context, network, addr string) (conn net.Conn, err error) {
	err = n.ns.Inside(func() error {
		conn, err = net.DialTimeout(network, addr, 20*time.Second)
		return err
	})
	return conn, err
}

// ssh runs a command on the node and returns what it printed to stdout.
func (n *neighbour) ssh(t *testing.T, command string) string {
	conn, err := n.dial(t.Context(), "tcp", nodeAddr+":22")
	if err != nil {
		t.Errorf("ssh: %v", err)
		return ""
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Error(err)
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, nodeAddr, &ssh.ClientConfig{
		User: "lab", Auth: []ssh.AuthMethod{ssh.PublicKeys(n.key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Errorf("ssh: %v", err)
		return ""
	}
	client := ssh.NewClient(c, chans, reqs)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Errorf("ssh: %v", err)
		return ""
	}
	out, err := session.Output(command)
	if err != nil {
		t.Errorf("ssh %s: %v\n%s", command, err, out)
	}
	return string(out)
}
