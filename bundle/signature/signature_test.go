package signature_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
	"atoll/bundle/signature"
)

var (
	digest = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0a", 32)}
	other  = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0b", 32)}
)

func newKey(t testing.TB) *signature.Key {
	t.Helper()
	k, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// judge runs a foreign tool and says whether it was content.
func judge(t *testing.T, stdin []byte, name string, args ...string) (string, bool) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKeyFiles(t *testing.T) {
	k := newKey(t)
	for _, password := range []string{"", "secret", "pass word\x00ü"} {
		data, err := k.Encode([]byte(password))
		if err != nil {
			t.Fatal(err)
		}
		again, err := signature.ParseKey(data, []byte(password))
		if err != nil || again.Public().String() != k.Public().String() {
			t.Errorf("password %q: %v", password, err)
		}
		if _, err := signature.ParseKey(data, []byte(password+"x")); !errors.Is(err, signature.ErrPassword) {
			t.Errorf("wrong password: %v", err)
		}
		block, _ := pem.Decode(data)
		old := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED COSIGN PRIVATE KEY", Bytes: block.Bytes})
		if _, err := signature.ParseKey(old, []byte(password)); err != nil {
			t.Errorf("key of an old cosign: %v", err)
		}
	}
	data, err := k.Public().Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := signature.ParsePublicKey(data)
	if err != nil || again.String() != k.Public().String() {
		t.Errorf("public key: %v", err)
	}
}

// TestCosignKey reads a key that cosign v3.1.3 made with the password "secret".
func TestCosignKey(t *testing.T) {
	private, err := os.ReadFile("testdata/cosign.key")
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile("testdata/cosign.pub")
	if err != nil {
		t.Fatal(err)
	}
	k, err := signature.ParseKey(private, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Public().Encode(); err != nil || !bytes.Equal(got, public) {
		t.Errorf("public key is %s, %v", got, err)
	}
}

func TestWrongKeys(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&p384.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := newKey(t).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ data, want string }{
		"empty":       {"", "no PEM block"},
		"large":       {strings.Repeat("x", 1<<20), "more than"},
		"private key": {string(private), "another kind of key"},
		"P-384":       {string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), "P-256"},
		"nonsense":    {"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "parsing"},
	} {
		if _, err := signature.ParsePublicKey([]byte(test.data)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestDigests(t *testing.T) {
	k := newKey(t)
	payload, sig, err := k.SignDigest(digest, "atoll/bundle")
	if err != nil {
		t.Fatal(err)
	}
	if _, again, _ := k.SignDigest(digest, "atoll/bundle"); again != sig {
		t.Error("signed twice is not the same")
	}
	if err := k.Public().VerifyDigest(payload, sig, digest); err != nil {
		t.Error(err)
	}
	// A signature of a file must not do for one of a digest, nor one of other JSON.
	raw, err := base64.StdEncoding.DecodeString(sig)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"another digest":    k.Public().VerifyDigest(payload, sig, other),
		"another key":       newKey(t).Public().VerifyDigest(payload, sig, digest),
		"changed payload":   k.Public().VerifyDigest(bytes.Replace(payload, []byte("0a"), []byte("0b"), 1), sig, digest),
		"appended to":       k.Public().VerifyDigest(append(bytes.Clone(payload), ' '), sig, digest),
		"changed signature": k.Public().VerifyDigest(payload, base64.StdEncoding.EncodeToString(raw[1:]), digest),
		"no signature":      k.Public().VerifyDigest(payload, "", digest),
		"no base 64":        k.Public().VerifyDigest(payload, "§", digest),
	} {
		if !errors.Is(err, bundle.ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := t.TempDir()
	public, _ := k.Public().Encode()
	out, ok := judge(t, payload, "openssl", "dgst", "-sha256", "-verify", write(t, dir, "k.pub", public), "-signature", write(t, dir, "sig", raw))
	if !ok {
		t.Errorf("openssl: %s", out)
	}
	if out, ok := judge(t, append(payload, ' '), "openssl", "dgst", "-sha256", "-verify", filepath.Join(dir, "k.pub"), "-signature", filepath.Join(dir, "sig")); ok {
		t.Errorf("openssl takes what is changed: %s", out)
	}
}

func TestFiles(t *testing.T) {
	k := newKey(t)
	message := []byte("0a0a  box.raw\n")
	sig, err := k.SignFile(message)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := k.SignFile(message); !bytes.Equal(again, sig) {
		t.Error("signed twice is not the same")
	}
	if err := k.Public().VerifyFile(message, sig); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"other content": k.Public().VerifyFile([]byte("0b0b  box.raw\n"), sig),
		"another key":   newKey(t).Public().VerifyFile(message, sig),
		"no signature":  k.Public().VerifyFile(message, nil),
		"cut":           k.Public().VerifyFile(message, sig[:len(sig)/2]),
		"large":         k.Public().VerifyFile(message, make([]byte, 1<<20)),
	} {
		if !errors.Is(err, bundle.ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}

	// What README tells people who have no Atoll.
	dir := t.TempDir()
	public, _ := k.Public().Encode()
	line, ok := judge(t, nil, "ssh-keygen", "-i", "-m", "PKCS8", "-f", write(t, dir, "k.pub", public))
	if !ok {
		t.Fatalf("ssh-keygen -i: %s", line)
	}
	signers := write(t, dir, "allowed_signers", []byte("atoll "+line))
	args := []string{"-Y", "verify", "-f", signers, "-I", "atoll", "-n", "file", "-s", write(t, dir, "m.sig", sig)}
	if out, ok := judge(t, message, "ssh-keygen", args...); !ok {
		t.Errorf("ssh-keygen: %s", out)
	}
	if out, ok := judge(t, []byte("other"), "ssh-keygen", args...); ok {
		t.Errorf("ssh-keygen takes other content: %s", out)
	}
	if out, ok := judge(t, nil, "ssh-keygen", "-l", "-f", write(t, dir, "ssh.pub", []byte(line))); ok && !strings.Contains(out, k.Public().String()) {
		t.Errorf("fingerprint %s, ssh-keygen says %s", k.Public(), out)
	}
}

// What ssh-keygen signs with another namespace, as git does, is no signature of a file.
func TestForeignSignatures(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := x509.MarshalPKIXPublicKey(&private.PublicKey)
	public, err := signature.ParsePublicKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	ec, _ := x509.MarshalECPrivateKey(private)
	dir := t.TempDir()
	key := write(t, dir, "key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: ec}))
	out, ok := judge(t, nil, "ssh-keygen", "-y", "-f", key)
	if !ok {
		t.Fatalf("ssh-keygen: %s", out)
	}
	write(t, dir, "key.pub", []byte(out))
	for namespace, want := range map[string]bool{"file": true, "git": false} {
		message := write(t, dir, namespace, []byte("message"))
		if out, ok := judge(t, nil, "ssh-keygen", "-Y", "sign", "-f", key, "-n", namespace, message); !ok {
			t.Fatalf("ssh-keygen: %s", out)
		}
		sig, err := os.ReadFile(message + ".sig")
		if err != nil {
			t.Fatal(err)
		}
		if err := public.VerifyFile([]byte("message"), sig); (err == nil) != want {
			t.Errorf("namespace %s: %v", namespace, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	k := newKey(f)
	payload, sig, _ := k.SignDigest(digest, "atoll/bundle")
	file, _ := k.SignFile([]byte("message"))
	public, _ := k.Public().Encode()
	f.Add(payload, sig, file, public)
	f.Add([]byte(nil), "", []byte("-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQ==\n-----END SSH SIGNATURE-----\n"), []byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte, s string, file, key []byte) {
		signature.ParsePublicKey(key)
		signature.ParseKey(key, nil)
		if k.Public().VerifyDigest(data, s, digest) == nil && !bytes.Equal(data, payload) {
			t.Errorf("took %q", data)
		}
		if k.Public().VerifyFile(data, file) == nil && string(data) != "message" {
			t.Errorf("took %q", data)
		}
	})
}
