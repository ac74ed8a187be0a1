package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// clientTimeout bounds one request, on a machine that is emulated.
const clientTimeout = 30 * time.Second

// maxBody bounds what is read of a request or an answer.
const maxBody = 1 << 20

// answer is what get prints.
type answer struct {
	Status  int         `json:"status"`
	Headers http.Header `json:"headers"`
	Body    string      `json:"body"`
}

// echo answers each request with its own path, headers and body, as JSON.
func echo(ctx context.Context, addr string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// Who went away does not read it.
		_ = json.NewEncoder(w).Encode(map[string]any{"path": r.URL.Path, "headers": r.Header, "body": string(body)})
	})
	return serve(ctx, addr, mux, func() error { return nil })
}

// get prints what a URL answers, as JSON. Any status is an answer; an error is none.
func get(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(answer{resp.StatusCode, resp.Header, string(body)})
}

// certificates prints the chain that a TLS server shows, as PEM, whoever signed it.
func certificates(ctx context.Context, addr, name string) error {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	dialer := &tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}} // it is for the caller to judge
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, cert := range conn.(*tls.Conn).ConnectionState().PeerCertificates {
		if err := pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}); err != nil {
			return fmt.Errorf("printing certificate: %w", err)
		}
	}
	return nil
}
