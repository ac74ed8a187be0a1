package main

import (
	"encoding/binary"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"
)

var here, there = netip.MustParseAddr("10.42.0.7"), netip.MustParseAddr("10.42.0.8")

// segment makes an IPv4 packet of TCP from here to there.
func segment(data string) []byte {
	p := make([]byte, 20+32, 20+32+len(data)) // TCP's header has 12 bytes of options
	p[0], p[9] = 0x45, 6
	binary.BigEndian.PutUint16(p[2:], uint16(cap(p)))
	copy(p[12:], here.AsSlice())
	copy(p[16:], there.AsSlice())
	p[20+12] = 8 << 4
	return append(p, data...)
}

func TestWire(t *testing.T) {
	w := &wire{mark: []byte("a secret"), seen: map[[2]netip.Addr]*traffic{}}
	for _, data := range []string{
		"",                                 // an acknowledgement
		"\x16\x03\x01\x02\x00\x01\x00\x01", // ClientHello
		"\x16\x03\x03\x02\x00\x02\x00\x01", // ServerHello
		"GET / HTTP/1.1\r\nx: a secret\r\n\r\n",
	} {
		w.packet(segment(data))
	}
	udp := segment("a secret")
	udp[9] = 17
	w.packet(udp)
	got := w.list()
	if want := (traffic{From: here, To: there, Data: 3, Hellos: 1, Marks: 1}); len(got) != 1 || got[0] != want {
		t.Errorf("saw %+v, want %+v", got, want)
	}
}

func FuzzWire(f *testing.F) {
	f.Add(segment("\x16\x03\x01\x02\x00\x01"))
	f.Add(segment("")[:30])
	f.Fuzz(func(t *testing.T, packet []byte) {
		w := &wire{mark: []byte("a secret"), seen: map[[2]netip.Addr]*traffic{}}
		w.packet(packet)
		for _, seen := range w.list() {
			if seen.Hellos > seen.Data || seen.Marks > seen.Data {
				t.Errorf("counted %+v", seen)
			}
		}
	})
}

// TestSniff watches loopback, where everybody's traffic is plain.
func TestSniff(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("packet sockets are for root")
	}
	const mark = "a text that nobody else sends: 7f3a"
	addr := freeAddr(t)
	go func() {
		if err := sniff(t.Context(), addr, mark); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	}()
	if got := await(t, addr, http.StatusOK); got != http.StatusOK {
		t.Fatalf("it answers %d", got)
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/seen", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Mark", mark)
	for range 100 {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var seen []traffic
		err = json.NewDecoder(resp.Body).Decode(&seen)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(seen, func(tr traffic) bool { return tr.Marks > 0 }) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("the mark went by in plain text and was not seen")
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
