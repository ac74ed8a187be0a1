package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"atoll/bundle"
	"atoll/bundle/stack"
	"atoll/images/disk"
)

// writeDefinition writes a definition of an appliance that is hardly more than images:
// the lab stack without its components. What an appliance cannot be without is as small
// as it can be: a k3s release of three files and a Debian archive with the packages of a
// node, of some bytes each, both on disk. It gives the definition's path.
func writeDefinition(dir string, names []string) (string, error) {
	lab, err := stack.Load("lab")
	if err != nil {
		return "", err
	}
	release, archive := filepath.Join(dir, "k3s"), filepath.Join(dir, "archive")
	if err := writeK3s(release); err != nil {
		return "", err
	}
	if err := writeArchive(archive); err != nil {
		return "", err
	}
	references := make([]string, len(names))
	for i, n := range names {
		references[i] = registryHost + "/" + n
	}
	data, err := json.MarshalIndent(map[string]any{ // which is YAML too
		"name": "bench", "stack": lab.Name, "without": lab.Components(), "images": references,
		"k3s":  map[string]any{"version": "v1.34.4+bench1", "release": release},
		"base": map[string]any{"sources": []string{"deb [trusted=yes] file:" + archive + " bookworm main"}},
	}, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "appliance.yaml")
	return path, os.WriteFile(path, data, 0o644)
}

// writeK3s writes a release that is one in names and checksums only.
func writeK3s(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	sums := ""
	for _, name := range []string{"k3s", "k3s-images.txt", "k3s-airgap-images-amd64.tar.zst"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			return err
		}
		sums += bundle.DigestOf([]byte(name)).Hex + "  " + name + "\n"
	}
	return os.WriteFile(filepath.Join(dir, "sha256sum-amd64.txt"), []byte(sums), 0o644)
}

// writeArchive writes a Debian archive of packages that are none but in name and checksum.
func writeArchive(dir string) error {
	lists, pool := filepath.Join(dir, "dists/bookworm/main/binary-amd64"), filepath.Join(dir, "pool")
	for _, d := range []string{lists, pool} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	var index strings.Builder
	for _, name := range disk.Packages(nil) {
		data := []byte("the package " + name)
		file := name + "_1_amd64.deb"
		if err := os.WriteFile(filepath.Join(pool, file), data, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&index, "Package: %s\nArchitecture: amd64\nMaintainer: nobody <n@example.test>\nDescription: bench\nVersion: 1\nFilename: pool/%s\nSize: %d\nSHA256: %s\n\n",
			name, file, len(data), bundle.DigestOf(data).Hex)
	}
	if err := os.WriteFile(filepath.Join(lists, "Packages"), []byte(index.String()), 0o644); err != nil {
		return err
	}
	release := fmt.Sprintf("Origin: Bench\nLabel: Bench\nSuite: bookworm\nCodename: bookworm\nDate: Mon, 23 Nov 2026 11:22:37 UTC\nArchitectures: amd64\nComponents: main\nSHA256:\n %s %d main/binary-amd64/Packages\n",
		bundle.DigestOf([]byte(index.String())).Hex, index.Len())
	return os.WriteFile(filepath.Join(dir, "dists/bookworm/Release"), []byte(release), 0o644)
}
