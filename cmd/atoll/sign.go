package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"atoll/bundle"
	"atoll/bundle/bounds"
	"atoll/bundle/signature"
	"atoll/images/disk"
)

// passwordVariable is where cosign, too, takes the password of a key from.
const passwordVariable = "COSIGN_PASSWORD"

// keyOptions choose the key that signs what a command writes.
type keyOptions struct {
	file string
}

func (o *keyOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.file, "key", "", `private key to sign with, of "atoll key new" or cosign; its password is asked for, or in `+passwordVariable)
}

// load decrypts the key; without one it is nil, and people are told.
func (o keyOptions) load(ctx context.Context, e *env) (*signature.Key, error) {
	if o.file == "" {
		e.say(`not signed, so nobody can tell if it is changed: "atoll key new NAME" makes a key for --key`)
		return nil, nil
	}
	data, err := bundle.ReadRegular(o.file, bounds.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading key: %w", err)
	}
	password, err := e.password(ctx, "password of "+o.file)
	if err != nil {
		return nil, err
	}
	key, err := signature.ParseKey(data, password)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.file, err)
	}
	return key, nil
}

// readPublicKey reads a public key.
func readPublicKey(path string) (*signature.PublicKey, error) {
	data, err := bundle.ReadRegular(path, bounds.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading public key: %w", err)
	}
	key, err := signature.ParsePublicKey(data)
	if err != nil {
		return nil, withHint(fmt.Errorf("%s: %w", path, err), `it is the file that ends in .pub of "atoll key new"`)
	}
	return key, nil
}

// password is what the environment says, which the programs that we run then do not see, or
// what the user types unseen.
func (e *env) password(ctx context.Context, prompt string) ([]byte, error) {
	if value, ok := os.LookupEnv(passwordVariable); ok {
		return []byte(value), os.Unsetenv(passwordVariable)
	}
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, withHint(errors.New("there is no terminal to ask for a password"), "set %s", passwordVariable)
	}
	state, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("asking for a password: %w", err)
	}
	fmt.Fprintf(e.stderr, "%s: ", prompt)
	type answer struct {
		password []byte
		err      error
	}
	typed := make(chan answer, 1)
	go func() {
		password, err := term.ReadPassword(fd)
		typed <- answer{password, err}
	}()
	select {
	case a := <-typed:
		fmt.Fprintln(e.stderr)
		if a.err != nil {
			return nil, fmt.Errorf("asking for a password: %w", a.err)
		}
		return a.password, nil
	case <-ctx.Done():
		fmt.Fprintln(e.stderr)
		return nil, errors.Join(ctx.Err(), term.Restore(fd, state))
	}
}

// checksumLine is what sha256sum prints of an image.
func checksumLine(image string, sum v1.Hash) (string, error) {
	name := filepath.Base(image)
	if strings.ContainsAny(name, "\\\n\r") {
		return "", fmt.Errorf("%q cannot be in a file of checksums: choose another name", name)
	}
	return sum.Hex + "  " + name + "\n", nil
}

// writeChecksum puts an image's checksum beside it, and if there is a key the signature of that.
func writeChecksum(image string, sum v1.Hash, key *signature.Key) error {
	line, err := checksumLine(image, sum)
	if err != nil {
		return err
	}
	path := image + ".sha256"
	if err := os.Remove(path + ".sig"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // that of another image
	}
	if err := writeText(path, []byte(line)); err != nil || key == nil {
		return err
	}
	sig, err := key.SignFile([]byte(line))
	if err != nil {
		return err
	}
	return writeText(path+".sig", sig)
}

func writeText(path string, data []byte) error {
	return bundle.WriteFile(path, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// verifyImage checks that an image is what its checksum says, and that its checksum is signed.
func verifyImage(ctx context.Context, e *env, image string, key *signature.PublicKey) error {
	want, err := signedSum(image, key)
	if err != nil {
		return err
	}
	return compareSum(e, image, key, want, func(progress func(done, total int64)) (v1.Hash, error) {
		return disk.Sum(ctx, image, progress)
	})
}

// signedSum returns the checksum that an image must have by the word of a key. It does
// not read the image.
func signedSum(image string, key *signature.PublicKey) (v1.Hash, error) {
	path := image + ".sha256"
	line, err := bundle.ReadRegular(path, bounds.KeyFile)
	if err != nil {
		return v1.Hash{}, withHint(fmt.Errorf("reading the image's checksum: %w", err), `an image is signed by "atoll build --key" and "atoll key sign"`)
	}
	sig, err := bundle.ReadRegular(path+".sig", bounds.KeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s %w %s: there is no %s.sig", image, bundle.ErrUntrusted, key, path)
	}
	if err != nil {
		return v1.Hash{}, err
	}
	if err := key.VerifyFile(line, sig); err != nil {
		return v1.Hash{}, fmt.Errorf("%s: %w", path, err)
	}
	hex, _, _ := bytes.Cut(line, []byte(" "))
	want := v1.Hash{Algorithm: "sha256", Hex: string(hex)}
	if is, err := checksumLine(image, want); err != nil || is != string(line) || len(hex) != 64 {
		return v1.Hash{}, fmt.Errorf("%s %w %s: its checksum is of another file: %.200q", image, bundle.ErrUntrusted, key, line)
	}
	return want, nil
}

// compareSum computes the checksum of an image and compares it with the signed one.
func compareSum(e *env, image string, key *signature.PublicKey, want v1.Hash, sum func(progress func(done, total int64)) (v1.Hash, error)) error {
	step := e.progress("verify")
	got, err := sum(step.set)
	if err == nil && got != want {
		err = &bundle.CorruptError{Name: image, Want: want, Got: got}
	}
	step.end(err, "%s is whole and signed with %s", image, key)
	return err
}
