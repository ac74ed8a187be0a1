package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
)

// Kubeconfig writes a kubeconfig of the guest's cluster administrator for programs of this
// machine, and returns its path. They reach the API server by ssh, as long as the test runs.
func (g *Guest) Kubeconfig(ctx context.Context) (string, error) {
	text, err := g.Run(ctx, "sudo cat /etc/rancher/k3s/k3s.yaml", "")
	if err != nil {
		return "", err
	}
	server := regexp.MustCompile(`https://127\.0\.0\.1:[0-9]+`)
	url := server.FindString(text)
	if url == "" {
		return "", errors.New("the guest's kubeconfig names no server on its loopback")
	}
	addr, err := g.tunnel(url[len("https://"):])
	if err != nil {
		return "", fmt.Errorf("leading to the guest's API server: %w", err)
	}
	path := filepath.Join(g.t.TempDir(), "kubeconfig")
	return path, os.WriteFile(path, []byte(server.ReplaceAllString(text, "https://"+addr)), 0o600)
}

// tunnel leads a port of this machine to an address as the guest sees it.
func (g *Guest) tunnel(to string) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	g.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go g.lead(conn, to)
		}
	}()
	return l.Addr().String(), nil
}

// lead copies a connection's bytes both ways. One that cannot be led on is closed, which
// tells its program.
func (g *Guest) lead(from net.Conn, to string) {
	defer from.Close()
	s, err := g.session() // so that there is a client
	if err != nil {
		return
	}
	s.Close()
	g.access.mu.Lock()
	client := g.access.client
	g.access.mu.Unlock()
	if client == nil {
		return
	}
	conn, err := client.Dial("tcp", to)
	if err != nil {
		return
	}
	defer conn.Close()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{from, conn}, {conn, from}} {
		both.Go(func() {
			io.Copy(pair[0], pair[1]) // an error is an end too
			if c, ok := pair[0].(interface{ CloseWrite() error }); ok {
				c.CloseWrite()
			}
		})
	}
	both.Wait()
}
