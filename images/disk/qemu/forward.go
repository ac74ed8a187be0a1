package qemu

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"atoll/bundle"
)

// Forward leads TCP connections to an address of the host to a port of the guest.
type Forward struct {
	// Host is what the host listens on: an IPv4 address, as QEMU's network can no other,
	// and a port. With port 0 [Boot] takes a free one.
	Host netip.AddrPort
	// GuestPort is the port of the guest.
	GuestPort uint16
}

// ParseForward reads "[HOST:]PORT:GUESTPORT", as "docker run --publish" and "kubectl
// port-forward" do. Without HOST it is the host's loopback. PORT may be 0 or empty, for a
// free one.
func ParseForward(s string) (Forward, error) {
	parts := strings.Split(s, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return Forward{}, fmt.Errorf("%q is not [HOST:]PORT:GUESTPORT", s)
	}
	f := Forward{}
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if len(parts) == 3 {
		if host := parts[0]; host != "localhost" {
			var err error
			if addr, err = netip.ParseAddr(host); err != nil || !addr.Is4() {
				return f, fmt.Errorf("%q: %q is not an IPv4 address", s, host)
			}
		}
		parts = parts[1:]
	}
	var port uint64
	var err error
	if parts[0] != "" {
		if port, err = strconv.ParseUint(parts[0], 10, 16); err != nil {
			return f, fmt.Errorf("%q: %q is not a port", s, parts[0])
		}
	}
	guest, err := strconv.ParseUint(parts[1], 10, 16)
	if err != nil || guest == 0 {
		return f, fmt.Errorf("%q: %q is not a port of the guest", s, parts[1])
	}
	f.Host, f.GuestPort = netip.AddrPortFrom(addr, uint16(port)), uint16(guest)
	return f, nil
}

// String is what [ParseForward] reads.
func (f Forward) String() string { return fmt.Sprintf("%s:%d", f.Host, f.GuestPort) }

// A PortError says that the host cannot listen on what a forward names.
type PortError struct {
	Forward Forward
	Err     error // of the system: EADDRINUSE, EADDRNOTAVAIL or EACCES, most likely
}

func (e *PortError) Error() string {
	return fmt.Sprintf("forward %s: %v", e.Forward, e.Err)
}

// ports are the host's ends of forwards. They are held until QEMU takes them, so that
// nobody else does.
type ports []net.Listener

// listen takes all ports and returns the forwards with the free ones that were chosen.
func listen(forwards []Forward) (held ports, taken []Forward, err error) {
	for _, f := range forwards {
		l, err := net.Listen("tcp4", f.Host.String())
		if err != nil {
			held.release()
			return nil, nil, &PortError{f, err}
		}
		held = append(held, l)
		f.Host = netip.AddrPortFrom(f.Host.Addr(), uint16(l.Addr().(*net.TCPAddr).Port))
		taken = append(taken, f)
	}
	return held, taken, nil
}

func (p ports) release() {
	for _, l := range p {
		l.Close()
	}
}

// nic is the guest's network card in QEMU's words. With forwards alone the guest answers
// and cannot begin anything: no host, no name server, no world.
func nic(network bool, forwards []Forward) string {
	if !network && len(forwards) == 0 {
		return "none"
	}
	var b strings.Builder
	b.WriteString("user,model=virtio-net-pci,mac=" + bundle.BootMAC)
	if !network {
		b.WriteString(",restrict=on,ipv6=off")
	}
	for _, f := range forwards {
		fmt.Fprintf(&b, ",hostfwd=tcp:%s-:%d", f.Host, f.GuestPort)
	}
	return b.String()
}
