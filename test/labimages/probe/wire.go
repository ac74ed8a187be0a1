package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// traffic is what was seen on the wire of TCP from one address to another.
type traffic struct {
	From   netip.Addr `json:"from"`
	To     netip.Addr `json:"to"`
	Data   int        `json:"data"`   // segments that carry any
	Hellos int        `json:"hellos"` // that begin with TLS's ClientHello (RFC 8446, 4.1.2)
	Marks  int        `json:"marks"`  // that have the mark in plain text
}

// wire counts what it sees. A segment that crosses several interfaces is seen several times.
type wire struct {
	mark []byte

	mu   sync.Mutex
	seen map[[2]netip.Addr]*traffic
}

// sniff watches every interface of its network namespace, and tells at /seen what went by.
func sniff(ctx context.Context, addr, mark string) error {
	if mark == "" {
		return errors.New("sniff wants the text to look for")
	}
	protocol := uint16(syscall.ETH_P_ALL)
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM, int(protocol<<8|protocol>>8))
	if err != nil {
		return fmt.Errorf("opening a packet socket: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("opening a packet socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "packet socket")
	w := &wire{mark: []byte(mark), seen: map[[2]netip.Addr]*traffic{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /seen", func(rw http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(rw).Encode(w.list()) // who went away does not read it
	})
	defer socket.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { cancel(w.read(socket)) }()
	err = serve(ctx, addr, mux, func() error { return nil })
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(err, cause)
	}
	return err
}

func (w *wire) read(socket *os.File) error {
	buf := make([]byte, 1<<16)
	for {
		n, err := socket.Read(buf)
		if errors.Is(err, syscall.ENETDOWN) { // an interface that is gone
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return fmt.Errorf("reading packets: %w", err)
		}
		w.packet(buf[:n])
	}
}

// packet counts an IPv4 packet (RFC 791) with a TCP segment (RFC 9293). Others are not looked at.
func (w *wire) packet(p []byte) {
	if len(p) < 20 || p[0]>>4 != 4 || p[9] != syscall.IPPROTO_TCP {
		return
	}
	header, total := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
	if header < 20 || total > len(p) || total < header+20 {
		return
	}
	from, to := netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
	segment := p[header:total]
	offset := int(segment[12]>>4) * 4
	if offset < 20 || offset >= len(segment) {
		return
	}
	data := segment[offset:]
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.seen[[2]netip.Addr{from, to}]
	if t == nil {
		t = &traffic{From: from, To: to}
		w.seen[[2]netip.Addr{from, to}] = t
	}
	t.Data++
	if len(data) > 5 && data[0] == 22 && data[1] == 3 && data[5] == 1 {
		t.Hellos++
	}
	if bytes.Contains(data, w.mark) {
		t.Marks++
	}
}

func (w *wire) list() []traffic {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]traffic, 0, len(w.seen))
	for _, t := range w.seen {
		list = append(list, *t)
	}
	return list
}
