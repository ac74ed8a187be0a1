package main

import (
	"debug/elf"
	"fmt"
	"os"

	"atoll/bundle"
)

// machines names the ELF machine of an architecture.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// nodeBinary gives the path of the atoll that runs on the node: the given one or
// this program. The node has no libraries for it, so it must be static.
func nodeBinary(path, arch string) (string, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("finding this program's file: %w", err)
		}
		path = self
	}
	const hint = "build one with CGO_ENABLED=0 GOOS=linux GOARCH=%s and name it with --node-binary"
	file, err := bundle.OpenRegular(path)
	if err != nil {
		return "", withHint(fmt.Errorf("reading the program for the node: %w", err), hint, arch)
	}
	defer file.Close()
	f, err := elf.NewFile(file)
	if err != nil {
		return "", withHint(fmt.Errorf("reading %s: %w", path, err), hint, arch)
	}
	if f.Machine != machines[arch] {
		return "", withHint(fmt.Errorf("%s is for %s, but the node is %s", path, f.Machine, arch), hint, arch)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", withHint(fmt.Errorf("%s is not statically linked", path), hint, arch)
		}
	}
	return path, nil
}
