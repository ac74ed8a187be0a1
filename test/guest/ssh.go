package guest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// Key is a key for ssh, made for a test and nowhere written.
type Key struct{ ssh.Signer }

// NewKey makes a key.
func NewKey(t testing.TB) *Key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return &Key{signer}
}

// Authorized is the public key, for sshAuthorizedKeys of a definition.
func (k *Key) Authorized() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.PublicKey())))
}

// access is a connection that commands share.
type access struct {
	mu     sync.Mutex
	client *ssh.Client // nil until the first command, and after it broke
}

func (a *access) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client != nil {
		a.client.Close()
		a.client = nil
	}
}

// session begins one, over a connection that is there or a new one.
func (g *Guest) session() (*ssh.Session, error) {
	a := &g.access
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client != nil {
		if s, err := a.client.NewSession(); err == nil {
			return s, nil
		}
		a.client.Close()
		a.client = nil
	}
	conn, err := net.DialTimeout("tcp", g.Addr(SSHPort), 20*time.Second)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	// Nobody but the guest is at the other end of a forward on loopback.
	c, chans, reqs, err := ssh.NewClientConn(conn, g.Addr(SSHPort), &ssh.ClientConfig{
		User: g.config.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(g.config.Key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	a.client = ssh.NewClient(c, chans, reqs)
	return a.client.NewSession()
}

// Run runs a command of the guest's shell, with stdin, and returns what it printed to
// stdout. The error, which has its stderr, is an [ssh.ExitError] if the command failed. A
// guest that does not answer yet is waited for.
func (g *Guest) Run(ctx context.Context, command, stdin string) (string, error) {
	var s *ssh.Session
	err := WaitFor(ctx, func() (err error) {
		s, err = g.session()
		select {
		case <-g.ended:
			return nil // err says it
		default:
			return err
		}
	})
	if err == nil && s == nil {
		err = errors.New("the guest has ended")
	}
	if err != nil {
		return "", fmt.Errorf("running %q in the guest: %w", command, err)
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { g.access.close() })()
	var stdout, stderr bytes.Buffer
	s.Stdin, s.Stdout, s.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := s.Run(command); err != nil {
		return stdout.String(), fmt.Errorf("running %q in the guest: %w\n%s", command, errors.Join(ctx.Err(), err), stderr.String())
	}
	return stdout.String(), nil
}

// Kubectl runs kubectl on the node, as root, with a manifest or what else it reads as stdin.
func (g *Guest) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	command := "sudo k3s kubectl"
	for _, a := range args {
		command += " '" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return g.Run(ctx, command, stdin)
}
