package bundletest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"testing"

	"atoll/bundle"
)

// A Member is a file of a tar or, if Header is zero but for its name, of an ar archive.
type Member struct {
	tar.Header
	Content string
}

// File makes a regular file.
func File(name, content string) Member {
	return Member{tar.Header{Name: name, Mode: 0o644}, content}
}

// Deb makes a Debian package for amd64 with these files.
func Deb(name, version string, files ...Member) []byte {
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: nobody <n@example.test>\nDescription: lab\n", name, version)
	return Ar(File("debian-binary", "2.0\n"),
		File("control.tar", Tar(File("./control", control))),
		File("data.tar", Tar(files...)))
}

// Copyright makes the copyright file of a package.
func Copyright(name, content string) Member {
	return File("./usr/share/doc/"+name+"/copyright", content)
}

// Ar makes an archive of the members (ar(5)).
func Ar(members ...Member) []byte {
	var buf bytes.Buffer
	buf.WriteString("!<arch>\n")
	for _, m := range members {
		fmt.Fprintf(&buf, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", m.Name, 1700000000, 0, 0, "100644", len(m.Content), m.Content)
		if len(m.Content)%2 == 1 {
			buf.WriteByte('\n')
		}
	}
	return buf.Bytes()
}

// Tar makes a tar of the members.
func Tar(members ...Member) string {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		m.Size = int64(len(m.Content))
		must(w.WriteHeader(&m.Header))
		_, err := w.Write([]byte(m.Content))
		must(err)
	}
	must(w.Close())
	return buf.String()
}

// must is for writes to memory, which fail only where a test gives them nonsense.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// AddPackage stores a Debian package and locks it.
func (f *Fixture) AddPackage(t testing.TB, name, version string, deb []byte) {
	t.Helper()
	f.Lock.Packages = append(f.Lock.Packages, bundle.LockedPackage{
		Name: name, Version: version, Archive: "Debian", Path: "pool/main/" + name + "_" + version + "_amd64.deb",
		Digest: f.Put(t, deb), Size: int64(len(deb)),
	})
}
