package test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"atoll/test/guest"
)

// forwarded boots the lab node again, with forwards: its ports answer, it can reach nothing,
// and it is powered off at the end. Its definition has static addresses, which do not matter.
func forwarded(t *testing.T, atoll, image, overlay string, key *guest.Key) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	g := guest.Boot(ctx, t, guest.Config{Atoll: atoll, Image: image, Overlay: overlay, User: "lab", Key: key, Ports: []int{80}})
	if err := g.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]int{
		"http://" + g.Addr(guest.StatusPort) + "/healthz": http.StatusOK,
		"http://" + g.Addr(80) + "/readyz":                http.StatusOK, // a hostPort
	} {
		err := guest.WaitFor(ctx, func() error {
			resp, err := http.Get(url)
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				return fmt.Errorf("%s: %s", url, resp.Status)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	nodes, err := g.Kubectl(ctx, "", "get", "nodes", "--output=jsonpath={.items[0].status.addresses[0].address}")
	if err != nil || nodes != "203.0.113.254" {
		t.Errorf("node's address is %q, %v", nodes, err)
	}
	noWayOut(ctx, t, g)
	if err := g.PowerOff(ctx); err != nil {
		t.Errorf("Ctrl-C: %v\n%s", err, g.Said())
	}
	if !strings.Contains(g.Said(), "powering off") {
		t.Errorf("Ctrl-C:\n%s", g.Said())
	}
}

// noWayOut tries what QEMU's network has, as root and with the routes that its DHCP server
// keeps back: this machine's loopback, which is 10.0.2.2 to a guest, a name server, the world.
func noWayOut(ctx context.Context, t *testing.T, g *guest.Guest) {
	var came atomic.Int32
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			conn.Close()
		}
	}()
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	go func() {
		for {
			if _, _, err := udp.ReadFrom(make([]byte, 100)); err != nil {
				return
			}
			came.Add(1)
		}
	}()
	_, tcpPort, _ := net.SplitHostPort(tcp.Addr().String())
	_, udpPort, _ := net.SplitHostPort(udp.LocalAddr().String())
	script := strings.NewReplacer("TCP", tcpPort, "UDP", udpPort).Replace(`
ip route replace default via 10.0.2.2 metric 1
reach() { timeout 10 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null && echo "reached $1:$2"; }
reach 10.0.2.2 TCP
reach 10.0.2.2 22
reach 10.0.2.3 53
reach 192.0.2.1 443
reach 1.1.1.1 443
echo hello >/dev/udp/10.0.2.2/UDP
# A query for the addresses of localhost, which every name server knows.
answer=$(timeout 10 bash -c '
	exec 3<>/dev/udp/10.0.2.3/53
	printf "\0\1\1\0\0\1\0\0\0\0\0\0\11localhost\0\0\1\0\1" >&3
	head -c 1 <&3 | wc -c')
[ "${answer:-0}" = 0 ] || echo "a name server answered"
ip route del default via 10.0.2.2
ip -4 route show default
`)
	out, err := g.Run(ctx, "sudo bash", script)
	if err != nil || !strings.HasPrefix(out, "default via 203.0.113.255 dev dummy0 ") || strings.Count(out, "\n") != 1 {
		t.Errorf("the guest has a way out: %v\n%s", err, out)
	}
	if n := came.Load(); n != 0 {
		t.Errorf("%d connections or packets of the guest came to this machine", n)
	}
}
