// Package pki makes and keeps the cluster's certificates: CAs once, at the first start, leaves again whenever they
// are near their end, their names changed, or another CA signed them. Keys and certificates are written whole.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"slices"
	"time"

	"atoll/test/k3s/node/internal/files"
)

// k3s's lifetimes. A certificate starts an hour in the past, for clocks that are put right after the first start.
const (
	caLife    = 10 * 365 * 24 * time.Hour
	leafLife  = 365 * 24 * time.Hour
	renewWhen = 90 * 24 * time.Hour
	backdate  = time.Hour
)

// CA signs leaves. Its certificate is File+".crt", its key File+".key".
type CA struct {
	File string
	cert *x509.Certificate
	key  crypto.Signer
}

// LoadCA reads the CA called name from file+".crt" and file+".key", or makes it when neither exists.
func LoadCA(file, name string, now time.Time) (*CA, error) {
	ca, err := readCA(file)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return ca, err
	}
	if _, err := os.Stat(file + ".crt"); err == nil {
		return nil, fmt.Errorf("CA %s.crt has lost its key", file)
	}
	key, err := newKey(file + ".key")
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s@%d", name, now.Unix())},
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	if err := sign(file+".crt", template, template, key.Public(), key, now); err != nil {
		return nil, err
	}
	return readCA(file)
}

func readCA(file string) (*CA, error) {
	key, err := readKey(file + ".key")
	if err != nil {
		return nil, err
	}
	cert, err := readCert(file + ".crt")
	if err != nil {
		return nil, err
	}
	return &CA{File: file, cert: cert, key: key}, nil
}

// Leaf is a certificate that a CA signs: for a client when Hosts is empty, else for a server.
type Leaf struct {
	File   string // File+".crt" and File+".key"
	Name   string
	Groups []string
	Hosts  []string // host names and IP addresses
}

// Ensure makes the leaf, or renews it, unless a good one is there.
func (ca *CA) Ensure(l Leaf, now time.Time) error {
	if ca.good(l, now) {
		return nil
	}
	key, err := newKey(l.File + ".key")
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: l.Name, Organization: l.Groups},
		NotAfter:    now.Add(leafLife),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if len(l.Hosts) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	template.DNSNames, template.IPAddresses = split(l.Hosts)
	return sign(l.File+".crt", template, ca.cert, key.Public(), ca.key, now)
}

func (ca *CA) good(l Leaf, now time.Time) bool {
	cert, err := readCert(l.File + ".crt")
	if err != nil {
		return false
	}
	key, err := readKey(l.File + ".key")
	if err != nil {
		return false
	}
	names, ips := split(l.Hosts)
	public, ok := cert.PublicKey.(*ecdsa.PublicKey)
	return ok && public.Equal(key.Public()) &&
		cert.CheckSignatureFrom(ca.cert) == nil &&
		now.After(cert.NotBefore) && now.Add(renewWhen).Before(cert.NotAfter) &&
		cert.Subject.CommonName == l.Name && slices.Equal(cert.Subject.Organization, l.Groups) &&
		slices.Equal(cert.DNSNames, names) && slices.EqualFunc(cert.IPAddresses, ips, net.IP.Equal)
}

func split(hosts []string) (names []string, ips []net.IP) {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			ips = append(ips, ip)
		} else {
			names = append(names, h)
		}
	}
	return names, ips
}

// EnsureKey makes the private key that signs service account tokens, unless it is there.
func EnsureKey(file string) error {
	if _, err := readKey(file); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err := newKey(file)
	return err
}

func newKey(file string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making key %s: %w", file, err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding key %s: %w", file, err)
	}
	return key, writePEM(file, "EC PRIVATE KEY", der, 0o600)
}

func sign(file string, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer, now time.Time) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("making a serial number: %w", err)
	}
	template.SerialNumber, template.NotBefore = serial, now.Add(-backdate)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return fmt.Errorf("signing %s: %w", file, err)
	}
	return writePEM(file, "CERTIFICATE", der, 0o644)
}

func writePEM(file, kind string, der []byte, mode fs.FileMode) error {
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}); err != nil {
		return fmt.Errorf("encoding %s: %w", file, err)
	}
	return files.WriteWhole(file, b.Bytes(), mode)
}

func readCert(file string) (*x509.Certificate, error) {
	der, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", file, err)
	}
	return cert, nil
}

func readKey(file string) (*ecdsa.PrivateKey, error) {
	der, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParseECPrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", file, err)
	}
	return key, nil
}

func readPEM(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("parsing %s: no PEM block", file)
	}
	return block.Bytes, nil
}
