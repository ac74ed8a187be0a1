package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	dialsAtOnce = 256 // more is more than an emulated machine answers in time
	dialTimeout = 2 * time.Second
	// wantedTimeout is for a port that must be open: its server may start late, on a
	// processor that is emulated.
	wantedTimeout = 3 * time.Minute
)

// scan tries to connect to every TCP port of the list on a host. The open ones must be
// those that are wanted, no more and no less.
func scan(ctx context.Context, host, ports, wanted string) error {
	try, err := parsePorts(ports)
	if err != nil {
		return err
	}
	want, err := parsePorts(wanted)
	if err != nil {
		return err
	}
	open := openPorts(ctx, host, try)
	for _, port := range want {
		if !slices.Contains(open, port) && waitOpen(ctx, host, port) {
			open = append(open, port)
		}
	}
	slices.Sort(open)
	fmt.Printf("%s: %d TCP ports tried, open: %v\n", host, len(try), open)
	if !slices.Equal(open, want) {
		return fmt.Errorf("open ports of %s are %v, want %v", host, open, want)
	}
	return ctx.Err()
}

func openPorts(ctx context.Context, host string, ports []int) []int {
	var mu sync.Mutex
	var open []int
	var wg sync.WaitGroup
	slots := make(chan struct{}, dialsAtOnce)
	for _, port := range ports {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if canDial(ctx, host, port) {
				mu.Lock()
				defer mu.Unlock()
				open = append(open, port)
			}
		})
	}
	wg.Wait()
	return open
}

func waitOpen(ctx context.Context, host string, port int) bool {
	ctx, cancel := context.WithTimeout(ctx, wantedTimeout)
	defer cancel()
	for ctx.Err() == nil {
		if canDial(ctx, host, port) {
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return false
}

func canDial(ctx context.Context, host string, port int) bool {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// parsePorts reads a list like 22,8000-8100 and sorts it. Empty is none.
func parsePorts(list string) ([]int, error) {
	var ports []int
	for part := range strings.SplitSeq(list, ",") {
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || from == 0 || from > to {
			return nil, fmt.Errorf("%q is no port and no range of ports", part)
		}
		for p := from; p <= to; p++ {
			ports = append(ports, int(p))
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), nil
}
