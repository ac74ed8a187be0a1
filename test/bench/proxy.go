package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// proxy stands before a registry and counts the bytes of all connections, heads and
// bodies, both ways. It carries TCP and does not look into it, so it costs little and
// changes nothing.
type proxy struct {
	// latency is added to the making of a connection and to each request, which is what
	// a round trip of that length does.
	latency time.Duration
	// rate bounds each connection's answers, in bytes per second; 0 is no bound.
	rate int64

	listener net.Listener
	upstream string // HOST:PORT
	wire     atomic.Int64
	open     atomic.Int64 // connections
}

// listen begins to serve, on a free port of loopback, until close is called.
func (p *proxy) listen() error {
	var err error
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	go func() {
		for {
			client, err := p.listener.Accept()
			if err != nil {
				return // closed
			}
			p.open.Add(1)
			go p.carry(client)
		}
	}()
	return nil
}

func (p *proxy) close() { p.listener.Close() }

// address is where the proxy listens.
func (p *proxy) address() string { return p.listener.Addr().String() }

// carry carries one connection. When either side ends it, both have ended it.
func (p *proxy) carry(client net.Conn) {
	defer p.open.Add(-1)
	defer client.Close()
	time.Sleep(p.latency)
	server, err := net.Dial("tcp", p.upstream)
	if err != nil {
		return // the client sees its connection closed
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		// A request is one segment: what is read at once is delayed as a whole.
		p.copy(server, client, p.latency, 0)
	}()
	p.copy(client, server, 0, p.rate)
	client.Close()
	server.Close()
	<-done
}

// burst is how far a connection may catch up on its rate after the timer was late.
const burst = 10 * time.Millisecond

// pieces is how many bytes the kernel moves between two looks at the count.
const pieces = 256 << 10

// copy copies until either side fails or ends.
func (p *proxy) copy(dst, src net.Conn, latency time.Duration, rate int64) {
	if latency == 0 && rate == 0 {
		// The kernel splices, so that the proxy takes no time from what is measured.
		for {
			n, err := io.CopyN(dst, src, pieces)
			p.wire.Add(n)
			if err != nil {
				return
			}
		}
	}
	buf := make([]byte, 128<<10)
	due := time.Now()
	for {
		n, err := src.Read(buf)
		if n > 0 {
			p.wire.Add(int64(n))
			time.Sleep(latency)
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
		if rate > 0 {
			if floor := time.Now().Add(-burst); due.Before(floor) {
				due = floor
			}
			due = due.Add(time.Duration(int64(n) * int64(time.Second) / rate))
			time.Sleep(time.Until(due))
		}
	}
}

// count waits until no connection is left and gives what was counted since the last time.
func (p *proxy) count(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for p.open.Load() > 0 {
		select {
		case <-ctx.Done():
			return 0, errors.New("a connection stays open though the command has ended")
		case <-time.After(time.Millisecond):
		}
	}
	return p.wire.Swap(0), nil
}
