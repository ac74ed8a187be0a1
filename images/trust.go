package images

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atoll/bundle"
	"atoll/bundle/bounds"
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
	folder := trustFolder(dirs, host)
	if folder == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(folder)
	var config *tls.Config
	if err == nil {
		config, err = readTrust(folder, entries)
	}
	if err != nil {
		return nil, fmt.Errorf("reading certificates for %s: %w", hostName(host), err)
	}
	return config, nil
}

// trustFolder is a host's folder of certificates, which may also be called as [hostName]
// does; empty if it has none.
func trustFolder(dirs []string, host string) string {
	if host == "" || strings.ContainsAny(host, `/\`) || strings.HasPrefix(host, ".") {
		return ""
	}
	for _, dir := range dirs {
		for _, name := range []string{host, hostName(host)} {
			folder := filepath.Join(dir, name)
			if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
				return folder
			}
		}
	}
	return ""
}

// certsFolder is where a host's certificates are, or may be put.
func certsFolder(dirs []string, host string) string {
	return cmp.Or(trustFolder(dirs, host), filepath.Join("/etc/docker/certs.d", hostName(host)))
}

func readTrust(dir string, entries []fs.DirEntry) (*tls.Config, error) {
	config := &tls.Config{}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		switch filepath.Ext(file) {
		case ".crt":
			data, err := bundle.ReadRegular(file, bounds.Credentials)
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
			key := strings.TrimSuffix(file, ".cert") + ".key"
			if !hasFile(entries, key) {
				return nil, fmt.Errorf("client certificate %s has no key: put it into %s (or is it an authority's, whose name ends in .crt?)", file, key)
			}
			cert, certErr := bundle.ReadRegular(file, bounds.Credentials)
			secret, keyErr := bundle.ReadRegular(key, bounds.Credentials)
			if err := errors.Join(certErr, keyErr); err != nil {
				return nil, err
			}
			pair, err := tls.X509KeyPair(cert, secret)
			if err != nil {
				return nil, fmt.Errorf("client certificate %s: %w", file, err)
			}
			config.Certificates = append(config.Certificates, pair)
		case ".key":
			if cert := strings.TrimSuffix(file, ".key") + ".cert"; !hasFile(entries, cert) {
				return nil, fmt.Errorf("key %s has no client certificate: put it into %s", file, cert)
			}
		}
	}
	return config, nil
}

func hasFile(entries []fs.DirEntry, file string) bool {
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == filepath.Base(file) })
}
