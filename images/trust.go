package images

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// certsDirs are the folders that hold a folder HOST[:PORT] of certificates for a host,
// as docker and podman read them. The first that has one counts.
func certsDirs() []string {
	dirs := []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append([]string{filepath.Join(home, ".config/containers/certs.d")}, dirs...)
	}
	return dirs
}

// hostTrust reads a host's folder of certificates; nil if it has none. Every *.crt is a
// CA beside the machine's own, every NAME.cert a client certificate with its NAME.key.
func hostTrust(dirs []string, host string) (*tls.Config, error) {
	if host == "" || strings.ContainsAny(host, `/\`) || strings.HasPrefix(host, ".") {
		return nil, nil
	}
	for _, dir := range dirs {
		dir = filepath.Join(dir, host)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading certificates for %s: %w", host, err)
		}
		config, err := readTrust(dir, entries)
		if err != nil {
			return nil, fmt.Errorf("reading certificates for %s: %w", host, err)
		}
		return config, nil
	}
	return nil, nil
}

func readTrust(dir string, entries []fs.DirEntry) (*tls.Config, error) {
	config := &tls.Config{}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		switch filepath.Ext(file) {
		case ".crt":
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			if config.RootCAs == nil {
				if config.RootCAs, err = x509.SystemCertPool(); err != nil {
					return nil, err
				}
			}
			if !config.RootCAs.AppendCertsFromPEM(data) {
				return nil, fmt.Errorf("%s holds no certificate", file)
			}
		case ".cert":
			pair, err := tls.LoadX509KeyPair(file, strings.TrimSuffix(file, ".cert")+".key")
			if err != nil {
				return nil, fmt.Errorf("client certificate %s: %w", file, err)
			}
			config.Certificates = append(config.Certificates, pair)
		}
	}
	return config, nil
}
