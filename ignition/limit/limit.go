// Package limit bounds what strangers can hold open of a server.
package limit

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// listener bounds what strangers can hold open. A source that has perSource
// connections gets no further one. When there are total ones, the oldest is closed for
// the new one: an honest request takes milliseconds, so the oldest is hardly one.
type listener struct {
	net.Listener
	total, perSource int

	mu     sync.Mutex
	open   list.List // of *counted, the oldest first
	counts map[netip.Prefix]int
}

// Listen returns a listener that takes in no more than total connections of l at a time, and no
// more than perSource of one IPv4 address or one IPv6 network of 64 bits.
func Listen(l net.Listener, total, perSource int) net.Listener {
	return &listener{Listener: l, total: total, perSource: perSource, counts: map[netip.Prefix]int{}}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		limited, oldest := l.admit(conn)
		if oldest != nil {
			oldest.Close() // only its peer would care about an error
		}
		if limited != nil {
			return limited, nil
		}
		conn.Close()
	}
}

// admit takes a connection in, and names the one that must make room for it. It
// returns nil if its source has enough.
func (l *listener) admit(conn net.Conn) (admitted, oldest *counted) {
	from := source(conn.RemoteAddr())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts[from] >= l.perSource {
		return nil, nil
	}
	if l.open.Len() >= l.total {
		oldest = l.open.Front().Value.(*counted)
		l.forget(oldest)
	}
	l.counts[from]++
	c := &counted{Conn: conn, listener: l, from: from}
	c.element = l.open.PushBack(c)
	return c, oldest
}

// forget takes a connection off the books, once. The caller holds the lock.
func (l *listener) forget(c *counted) {
	if c.element == nil {
		return
	}
	l.open.Remove(c.element)
	c.element = nil
	if l.counts[c.from]--; l.counts[c.from] == 0 {
		delete(l.counts, c.from)
	}
}

// source is what one neighbour can use: an IPv4 address, or an IPv6 network of 64 bits,
// in which a host takes as many addresses as it likes.
func source(addr net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Prefix{} // all that is no TCP shares one
	}
	ip := ap.Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // fails only for more bits than there are
	return p
}

// counted is a connection that is counted until it is closed.
type counted struct {
	net.Conn
	listener *listener
	from     netip.Prefix
	element  *list.Element // nil once it is not counted any more
}

func (c *counted) Close() error {
	c.listener.mu.Lock()
	c.listener.forget(c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
