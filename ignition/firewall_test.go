package ignition

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"atoll/test/netns"
)

// openMore is what docs/ports.md shows for a site's own file.
func openMore(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/ports.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "      inline: |\n")
	var lines []string
	for line := range strings.Lines(rest) {
		text, ok := strings.CutPrefix(line, "        ")
		if !ok {
			break
		}
		lines = append(lines, text)
	}
	if len(lines) == 0 {
		t.Fatal("docs/ports.md shows no rules")
	}
	return strings.Join(lines, "")
}

// needNft skips a test where no firewall can be tried.
func needNft(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can try a firewall")
	}
	for _, tool := range []string{"nft", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (packages nftables and iproute2)", tool)
		}
	}
}

// TestFirewallRules lets nft judge the rules, with those of a site added.
func TestFirewallRules(t *testing.T) {
	needNft(t)
	ns := newNamespace(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "site.nft"), []byte(openMore(t)), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, ns, "nft", "--check", "--file", "files/firewall.nft")
	for range 2 { // as at a reload: it starts anew
		run(t, ns, "nft", "--file", "files/firewall.nft")
		run(t, ns, "nft", `include "`+dir+`/*.nft"`)
	}
	if got := run(t, ns, "nft", "list", "chain", "inet", "atoll", "open"); strings.Count(got, "accept") != 1 {
		t.Errorf("a site's rules were not added, or twice:\n%s", got)
	}
	run(t, ns, "nft", `include "`+t.TempDir()+`/*.nft"`) // a site without rules
}

// TestFirewallPackets sends packets as a stranger and as a pod to a node that has
// Kubernetes's rules for a hostPort, a node port and a service.
func TestFirewallPackets(t *testing.T) {
	needNft(t)
	n := newNodeNet(t)
	tcp := map[string][]int{
		"198.51.100.2": {22, 80, 443, 5000, 5001, 6443, 8472, 9180, 10250, 30080},
		"fd00:a7::2":   {22, 6443, 9180, 10250},
		"10.42.0.2":    {8080}, // a pod
		"10.43.0.1":    {443},  // a service of it
		"192.0.2.1":    {7},    // somewhere behind the node
		"127.0.0.1":    {5000}, // of the node, once that is routed
	}
	check := func(from, who string, want ...string) {
		t.Helper()
		var mu sync.Mutex
		var open []string
		var wg sync.WaitGroup
		for addr, ports := range tcp {
			for _, port := range ports {
				wg.Go(func() {
					to := net.JoinHostPort(addr, strconv.Itoa(port))
					if dials(n[from], to) {
						mu.Lock()
						defer mu.Unlock()
						open = append(open, to)
					}
				})
			}
		}
		wg.Wait()
		slices.Sort(open)
		slices.Sort(want)
		if !slices.Equal(open, want) {
			t.Errorf("%s reaches %v, want %v", who, open, want)
		}
	}
	strangers := []string{"198.51.100.2:22", "198.51.100.2:80", "198.51.100.2:443", "198.51.100.2:9180", "[fd00:a7::2]:22", "[fd00:a7::2]:9180"}
	everything := append([]string{"198.51.100.2:5000", "198.51.100.2:5001", "198.51.100.2:6443", "198.51.100.2:8472", "198.51.100.2:10250", "198.51.100.2:30080",
		"[fd00:a7::2]:6443", "[fd00:a7::2]:10250", "10.42.0.2:8080", "10.43.0.1:443", "192.0.2.1:7", "127.0.0.1:5000"}, strangers...)
	check("stranger", "without a firewall a stranger", everything...)
	run(t, n["node"], "nft", "--file", "files/firewall.nft")
	check("stranger", "a stranger", strangers...)
	check("pod", "a pod",
		"198.51.100.2:80", "198.51.100.2:30080", "198.51.100.2:5001", "198.51.100.2:6443", "198.51.100.2:10250", // hostPort and node port lead to a pod
		"[fd00:a7::2]:6443", "[fd00:a7::2]:10250", "10.42.0.2:8080", "10.43.0.1:443", "192.0.2.1:7")
	for _, tc := range []struct {
		from, to string
		want     bool
	}{
		{"stranger", "198.51.100.2", true},
		{"stranger", "fd00:a7::2", true},
		{"stranger", "10.42.0.2", false},
		{"pod", "198.51.100.2", true},
		{"pod", "198.51.100.1", true}, // the answer comes back through the firewall
	} {
		if got := pings(n[tc.from], tc.to); got != tc.want {
			t.Errorf("%s pings %s: %v, want %v", tc.from, tc.to, got, tc.want)
		}
	}

	site := filepath.Join(t.TempDir(), "site.nft")
	if err := os.WriteFile(site, []byte("add element inet atoll open_tcp { 30080, 30443 }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, n["node"], "nft", "--file", site)
	check("stranger", "with a node port opened a stranger", append(strangers, "198.51.100.2:30080")...)
}

// TestFirewallHostPorts: a pod's hostPort cannot take the place of the node's registries, and
// serve what images it likes.
func TestFirewallHostPorts(t *testing.T) {
	needNft(t)
	n := newNodeNet(t)
	run(t, n["node"], "ip", "addr", "add", "203.0.113.254/32", "dev", "lo")
	rules := filepath.Join(t.TempDir(), "hostports.nft")
	// What the CNI plugin portmap sets up, to where nobody listens.
	if err := os.WriteFile(rules, []byte(`table ip nat {
	chain hostports {
		tcp dport { 5000, 5001, 5002 } dnat to 10.42.0.2:9
	}
	chain prerouting {
		fib daddr type local jump hostports
	}
	chain output {
		type nat hook output priority -100;
		fib daddr type local jump hostports
	}
}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, n["node"], "nft", "--file", rules)
	reaches := func(want bool) {
		t.Helper()
		for _, tc := range []struct{ from, to string }{
			{"node", "127.0.0.1:5000"}, {"node", "127.0.0.1:5001"}, {"node", "203.0.113.254:5001"}, {"pod", "203.0.113.254:5001"},
		} {
			if got := dials(n[tc.from], tc.to); got != want {
				t.Errorf("%s reaches the node's own %s: %v, want %v", tc.from, tc.to, got, want)
			}
		}
	}
	reaches(false) // so the test can tell
	run(t, n["node"], "nft", "--file", "files/firewall.nft")
	reaches(true)
	if dials(n["node"], "127.0.0.1:5002") {
		t.Error("a hostPort of another number leads no more to its pod")
	}
}

func newNamespace(t *testing.T) netns.Namespace {
	t.Helper()
	ns, err := netns.New(t)
	if err != nil {
		t.Skip(err)
	}
	return ns
}

// run runs a program in a namespace, which must succeed, and returns what it printed.
func run(t *testing.T, ns netns.Namespace, name string, args ...string) string {
	t.Helper()
	out, err := ns.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func dials(ns netns.Namespace, to string) bool {
	return ns.Inside(func() error {
		conn, err := net.DialTimeout("tcp", to, time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	}) == nil
}

// pings tells whether an echo request is answered.
func pings(ns netns.Namespace, addr string) bool {
	network, local, protocol, request, reply := "ip4:icmp", "0.0.0.0", 1, icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply)
	if strings.Contains(addr, ":") {
		network, local, protocol, request, reply = "ip6:ipv6-icmp", "::", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	return ns.Inside(func() error {
		conn, err := icmp.ListenPacket(network, local)
		if err != nil {
			return err
		}
		defer conn.Close()
		data, err := (&icmp.Message{Type: request, Body: &icmp.Echo{ID: 7, Seq: 1}}).Marshal(nil)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(data, &net.IPAddr{IP: net.ParseIP(addr)}); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		for buf := make([]byte, 1500); ; {
			got, _, err := conn.ReadFrom(buf)
			if err != nil {
				return err
			}
			if m, err := icmp.ParseMessage(protocol, buf[:got]); err == nil && m.Type == reply {
				return nil
			}
		}
	}) == nil
}

// nodeNet is a node with a stranger and a pod beside it, and what is behind it.
func newNodeNet(t *testing.T) map[string]netns.Namespace {
	t.Helper()
	n := map[string]netns.Namespace{}
	for _, name := range []string{"node", "stranger", "pod", "behind"} {
		n[name] = newNamespace(t)
	}
	link := func(far, iface, there string, here ...string) {
		run(t, n["node"], "ip", "link", "add", iface, "type", "veth", "peer", "name", "eth0", "netns", n[far].Name)
		for _, a := range here {
			run(t, n["node"], "ip", "addr", "add", a, "dev", iface, "nodad")
		}
		run(t, n["node"], "ip", "link", "set", iface, "up")
		for a := range strings.FieldsSeq(there) {
			run(t, n[far], "ip", "addr", "add", a, "dev", "eth0", "nodad")
		}
		run(t, n[far], "ip", "link", "set", "eth0", "up")
		gateway, _, _ := strings.Cut(here[0], "/")
		run(t, n[far], "ip", "route", "add", "default", "via", gateway)
	}
	link("stranger", "ens3", "198.51.100.1/24 fd00:a7::1/64", "198.51.100.2/24", "fd00:a7::2/64")
	link("pod", "cni0", "10.42.0.2/24 fd00:42::2/64", "10.42.0.1/24", "fd00:42::1/64")
	run(t, n["pod"], "ip", "route", "add", "default", "via", "fd00:42::1")
	link("behind", "ens4", "192.0.2.1/24", "192.0.2.2/24")
	// What kube-proxy and the CNI plugins set up.
	run(t, n["node"], "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.route_localnet=1", "net.ipv4.conf.ens3.route_localnet=1",
		"net.ipv4.conf.cni0.route_localnet=1")
	rules := filepath.Join(t.TempDir(), "kubernetes.nft")
	if err := os.WriteFile(rules, []byte(`table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		ip daddr 10.43.0.1 tcp dport 443 dnat to 10.42.0.2:8080
		fib daddr type local tcp dport { 80, 30080 } dnat to 10.42.0.2:8080
	}
	chain postrouting {
		type nat hook postrouting priority srcnat;
		ip saddr 10.42.0.0/16 masquerade
	}
}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, n["node"], "nft", "--file", rules)
	for who, addrs := range map[string][]string{
		"node":   {":22", ":443", "0.0.0.0:5000", "0.0.0.0:5001", "0.0.0.0:5002", ":6443", ":8472", ":9180", ":10250"},
		"pod":    {":8080"},
		"behind": {":7"},
	} {
		for _, addr := range addrs {
			if err := n[who].Inside(func() error {
				l, err := net.Listen("tcp", addr)
				if err == nil {
					t.Cleanup(func() { l.Close() })
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Packets to loopback's addresses leave these machines as any others.
	for _, who := range []string{"stranger", "pod"} {
		run(t, n[who], "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
		run(t, n[who], "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1", "net.ipv4.conf.eth0.route_localnet=1")
	}
	return n
}
