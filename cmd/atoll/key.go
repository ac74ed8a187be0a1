package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"atoll/bundle"
	"atoll/bundle/signature"
	"atoll/images/disk"
)

func newKeyCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make a key; sign bundles and images with it, and verify them",
		Long: `Key makes the key that "build --key" signs with. It is cosign's kind of key: ECDSA
on P-256, its private half encrypted with a password.

What is signed can be checked without Atoll. A bundle, unpacked:

  cosign verify --key NAME.pub --insecure-ignore-tlog --local-image FOLDER

A disk image, which comes with IMAGE.sha256 and IMAGE.sha256.sig:

  echo "atoll $(ssh-keygen -i -m PKCS8 -f NAME.pub)" >signers
  ssh-keygen -Y verify -f signers -I atoll -n file -s IMAGE.sha256.sig <IMAGE.sha256
  sha256sum -c IMAGE.sha256
`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyNewCommand(e), newKeySignCommand(e), newKeyVerifyCommand(e))
	return cmd
}

func newKeyNewCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "new NAME",
		Short: "Make a key: NAME.key to sign with, NAME.pub to verify with",
		Long: `New makes NAME.key, encrypted with a password and for you alone to read, and NAME.pub,
which may be known to all. The password is asked for, or in ` + passwordVariable + `. It
overwrites nothing.
` + exitStatus,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return runKeyNew(cmd.Context(), e, args[0]) },
	}
}

func runKeyNew(ctx context.Context, e *env, name string) error {
	private, public := name+".key", name+".pub"
	for _, path := range []string{private, public} {
		if _, err := os.Lstat(path); err == nil { // before anybody thinks of a password
			return fmt.Errorf("%s: %w: it may be all there is of a key", path, fs.ErrExist)
		}
	}
	_, given := os.LookupEnv(passwordVariable)
	password, err := e.password(ctx, "password for "+private)
	if err != nil {
		return err
	}
	if !given {
		again, err := e.password(ctx, "again")
		if err != nil {
			return err
		}
		if !bytes.Equal(password, again) {
			return errors.New("the two passwords differ")
		}
	}
	key, err := signature.New()
	if err != nil {
		return err
	}
	secret, err := key.Encode(password)
	if err != nil {
		return err
	}
	shown, err := key.Public().Encode()
	if err != nil {
		return err
	}
	if err := writeNew(private, 0o600, secret); err != nil {
		return err
	}
	if err := writeNew(public, 0o644, shown); err != nil {
		return errors.Join(err, os.Remove(private))
	}
	fmt.Fprintf(e.stdout, "%s %s\n", public, key.Public())
	return nil
}

// writeNew writes a file that must not be there yet, and only then is whole on the disk.
func writeNew(path string, mode fs.FileMode, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path) // what is half a key is none
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

func newKeySignCommand(e *env) *cobra.Command {
	var o keyOptions
	cmd := &cobra.Command{
		Use:   "sign --key NAME.key FILE...",
		Short: "Sign bundles and disk images",
		Long: `Sign checks each bundle whole and writes it anew with a signature, in place of the one
it may have. Beside each disk image it writes IMAGE.sha256 and IMAGE.sha256.sig. A node
takes the signature of its bundle only if the image was baked with that key: "atoll bake
--key".
` + exitStatus,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return runKeySign(cmd.Context(), e, o, args) },
	}
	o.addFlags(cmd.Flags())
	return cmd
}

func runKeySign(ctx context.Context, e *env, o keyOptions, files []string) error {
	if o.file == "" {
		return usageError{errors.New("--key says which key to sign with")}
	}
	kinds, err := kindsOf(files)
	if err != nil {
		return err
	}
	key, err := o.load(ctx, e)
	if err != nil {
		return err
	}
	for i, path := range files {
		step := e.progress("sign")
		if kinds[i] == kindBundle {
			err = bundle.Sign(ctx, path, &bundle.PackOptions{Key: key, Progress: step.set})
			err = hintRemake(err, remakeBundle)
		} else {
			err = signImage(ctx, path, key, step.set)
		}
		step.end(err, "%s is signed with %s", path, key.Public())
		if err != nil {
			return err
		}
	}
	return nil
}

func signImage(ctx context.Context, path string, key *signature.Key, progress func(done, total int64)) error {
	sum, err := disk.Sum(ctx, path, progress)
	if err != nil {
		return err
	}
	return writeChecksum(path, sum, key)
}

func newKeyVerifyCommand(e *env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "verify --key NAME.pub FILE...",
		Short: "Check that bundles and disk images are whole and signed",
		Long: `Verify reads each bundle and disk image whole. It fails if one is not what was signed
with the key, or not signed with it.
` + exitStatus,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return runKeyVerify(cmd.Context(), e, file, args) },
	}
	cmd.Flags().StringVar(&file, "key", "", "public key that they must be signed with")
	return cmd
}

func runKeyVerify(ctx context.Context, e *env, file string, files []string) error {
	if file == "" {
		return usageError{errors.New("--key says which key to verify with")}
	}
	key, err := readPublicKey(file)
	if err != nil {
		return err
	}
	kinds, err := kindsOf(files)
	if err != nil {
		return err
	}
	var errs []error
	for i, path := range files {
		if kinds[i] == kindBundle {
			errs = append(errs, runBundleVerify(ctx, e, path, key))
		} else {
			errs = append(errs, verifyImage(ctx, e, path, key))
		}
	}
	return errors.Join(errs...)
}

// fileKind is what a file that can be signed is.
type fileKind int

const (
	kindBundle fileKind = iota + 1
	kindImage
)

// kindsOf tells bundles and disk images by how they begin.
func kindsOf(files []string) ([]fileKind, error) {
	var kinds []fileKind
	for _, path := range files {
		kind, err := kindOf(path)
		if err != nil {
			return nil, err
		}
		kinds = append(kinds, kind)
	}
	return kinds, nil
}

func kindOf(path string) (fileKind, error) {
	f, err := bundle.OpenRegular(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	head := make([]byte, 1024)
	if _, err := io.ReadFull(f, head); err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return 0, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("oci-layout\x00")): // a tar's first member
		return kindBundle, nil
	case bytes.HasPrefix(head[512:], []byte("EFI PART")): // a partition table
		return kindImage, nil
	}
	return 0, damagedError{fmt.Errorf("%s is neither a bundle nor a disk image of Atoll", filepath.Base(path))}
}
