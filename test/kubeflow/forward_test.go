package kubeflow

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"atoll/test/guest"
)

// checkForward checks what "atoll boot --forward" promises of a guest that is ready: its
// status answers by a forward, as its gateway does, and it has no way out.
func checkForward(t *testing.T, g *guest.Guest) {
	resp, err := http.Get("http://" + g.Addr(guest.StatusPort) + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the node's health by a forward: %s", resp.Status)
	}
	noWayOut(t, g)
}

// noWayOut tries what QEMU's network has, as root and with the routes that its DHCP server
// keeps back: this machine's loopback, which is 10.0.2.2 to a guest, a name server, the world.
func noWayOut(t *testing.T, g *guest.Guest) {
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
	// The routes first: a guest without a card would have no way out either.
	out, err := g.Run(t.Context(), "sudo bash", wayOut(tcp.Addr(), udp.LocalAddr()))
	const want = "to 10.0.2.2 by the card\ndefault via 203.0.113.255 dev dummy0 "
	if err != nil || !strings.HasPrefix(out, want) || strings.Count(out, "\n") != 2 {
		t.Errorf("the guest has a way out: %v\n%s", err, out)
	}
	if n := came.Load(); n != 0 {
		t.Errorf("%d connections or packets of the guest came to this machine", n)
	}
}

// wayOut is a script that looks for a way out and says what it found. The addresses are
// those of two listeners of this machine.
func wayOut(tcp, udp net.Addr) string {
	return fmt.Sprintf(`
ip route replace default via 10.0.2.2 metric 1
case $(ip -4 route get 10.0.2.2) in *" dev dummy0 "*|"") echo "no card";; *) echo "to 10.0.2.2 by the card";; esac
reach() { timeout 10 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null && echo "reached $1:$2"; }
reach 10.0.2.2 %d &
reach 10.0.2.2 22 &
reach 10.0.2.3 53 &
reach 192.0.2.1 443 &
reach 1.1.1.1 443 &
echo hello >/dev/udp/10.0.2.2/%d
# A query for the addresses of localhost, which every name server knows.
answer=$(timeout 10 bash -c '
	exec 3<>/dev/udp/10.0.2.3/53
	printf "\0\1\1\0\0\1\0\0\0\0\0\0\11localhost\0\0\1\0\1" >&3
	head -c 1 <&3 | wc -c')
[ "${answer:-0}" = 0 ] || echo "a name server answered"
wait
ip route del default via 10.0.2.2 metric 1
ip -4 route show default
`, tcp.(*net.TCPAddr).Port, udp.(*net.UDPAddr).Port)
}
