// Package kube is the little that a lab program needs of the Kubernetes API: one
// request at a time, as the pod's service account.
package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Folder where the kubelet mounts a pod's service account.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 4 << 20

// StatusError is an answer other than 2xx.
type StatusError struct {
	Code    int
	Message string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("API server says %d: %s", e.Code, e.Message)
}

// IsStatus tells whether the API server answered with this status code.
func IsStatus(err error, code int) bool {
	var s *StatusError
	return errors.As(err, &s) && s.Code == code
}

// Client talks to the API server of the cluster that the program runs in.
type Client struct {
	// Namespace is the pod's own.
	Namespace string

	base   string
	dir    string
	client *http.Client
}

// InCluster makes a client from what the kubelet gives to every pod.
func InCluster() (*Client, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("finding the API server: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: not in a pod")
	}
	return New("https://"+net.JoinHostPort(host, port), serviceAccount)
}

// New makes a client for the API server at the base URL, with the ca.crt,
// namespace and token of a service account folder.
func New(base, dir string) (*Client, error) {
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("reading service account: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("reading service account: no certificate in %s/ca.crt", dir)
	}
	ns, err := os.ReadFile(filepath.Join(dir, "namespace"))
	if err != nil {
		return nil, fmt.Errorf("reading service account: %w", err)
	}
	return &Client{
		Namespace: strings.TrimSpace(string(ns)), base: base, dir: dir,
		client: &http.Client{
			Timeout:   30 * time.Second,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}},
		},
	}, nil
}

// Do sends in as JSON (nil: no body) and decodes the answer into out (nil: dropped).
// contentType is that of the body. An answer other than 2xx is a [*StatusError].
func (c *Client) Do(ctx context.Context, method, path, contentType string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encoding request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return fmt.Errorf("asking API server: %w", err)
	}
	// Read each time: the kubelet replaces the token before it ends.
	token, err := os.ReadFile(filepath.Join(c.dir, "token"))
	if err != nil {
		return fmt.Errorf("reading service account: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	if in != nil {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return fmt.Errorf("asking API server: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading answer of API server: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		var status struct{ Message string }
		if json.Unmarshal(data, &status) != nil || status.Message == "" {
			status.Message = strings.TrimSpace(string(data))
		}
		return &StatusError{Code: resp.StatusCode, Message: status.Message}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("decoding answer of API server: %w", err)
	}
	return nil
}
