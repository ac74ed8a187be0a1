package main

import (
	"bytes"
	"encoding/binary"
)

// pinnedDigest is the digest of quay.io/atoll-lab/pinned, which the lab stack's
// manifests pin. It never changes: nothing that a compiler makes is in the image.
const pinnedDigest = "sha256:afab736a3e498007241118a9123b91f9c21924e14bd743ae4232dc67857fb9ad"

// The machine code of a program that waits for ever, in ppoll(NULL, 0, NULL, NULL).
// As PID 1 of its container it only ends by SIGKILL.
var pause = map[string]struct {
	machine uint16 // ELF e_machine
	code    []byte
}{
	"amd64": {62, []byte{
		0x31, 0xff, // xor edi, edi
		0x31, 0xf6, // xor esi, esi
		0x31, 0xd2, // xor edx, edx
		0x4d, 0x31, 0xd2, // xor r10, r10
		0x4d, 0x31, 0xc0, // xor r8, r8
		0xb8, 0x0f, 0x01, 0x00, 0x00, // mov eax, 271 (ppoll)
		0x0f, 0x05, // syscall
		0xeb, 0xeb, // jmp to the start
	}},
	"arm64": {183, []byte{
		0x00, 0x00, 0x80, 0xd2, // mov x0, #0
		0x01, 0x00, 0x80, 0xd2, // mov x1, #0
		0x02, 0x00, 0x80, 0xd2, // mov x2, #0
		0x03, 0x00, 0x80, 0xd2, // mov x3, #0
		0x04, 0x00, 0x80, 0xd2, // mov x4, #0
		0x28, 0x09, 0x80, 0xd2, // mov x8, #73 (ppoll)
		0x01, 0x00, 0x00, 0xd4, // svc #0
		0xf9, 0xff, 0xff, 0x17, // b to the start
	}},
}

// pauseProgram gives the whole ELF file: a header, one loadable segment, the code.
func pauseProgram(arch string) []byte {
	const (
		base    = 0x400000
		headers = 64 + 56 // ELF64 header and one program header
	)
	p := pause[arch]
	size := uint64(headers + len(p.code))
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	for _, field := range []any{
		uint16(2), p.machine, uint32(1), uint64(base + headers), uint64(64), uint64(0), // executable, entry, program headers
		uint32(0), uint16(64), uint16(56), uint16(1), uint16(64), uint16(0), uint16(0), // flags, sizes and counts
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x10000), // PT_LOAD, read and execute
	} {
		if err := binary.Write(&b, binary.LittleEndian, field); err != nil {
			panic(err) // a buffer takes every number
		}
	}
	b.Write(p.code)
	return b.Bytes()
}
