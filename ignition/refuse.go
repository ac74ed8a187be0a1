package ignition

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_3/types"
	"github.com/vincent-petithory/dataurl"
)

// A refusal is something that Ignition allows and a node cannot do.
type refusal struct {
	path []any  // in Butane's names
	why  string // and what to do instead
}

const (
	whyAppend  = "append is refused: it would append again when a power cut makes Ignition run twice; write the whole file, or a drop-in"
	whyWipe    = "is refused: a power cut makes Ignition run twice, and the second run would destroy what the node wrote since"
	whyKargs   = "kernel arguments are refused: Debian's Ignition cannot set them"
	whyConfig  = "other configurations are refused: write what they hold into this file"
	whyWindows = "is a script whose lines end as on Windows, so that it cannot run: save it with LF line ends"
	whyNetwork = "the node has no network to fetch it from: use inline or local"
)

// refusals lists what a node cannot do, in the order of the file.
func refusals(c types.Config) []refusal {
	var out []refusal
	refuse := func(why string, path ...any) { out = append(out, refusal{path, why}) }
	source := func(r types.Resource, path ...any) {
		if r.Source != nil && *r.Source != "" && !strings.HasPrefix(*r.Source, "data:") {
			refuse(fmt.Sprintf("%q is refused: %s", *r.Source, whyNetwork), append(path, "source")...)
		}
	}
	if len(c.Ignition.Config.Merge) > 0 {
		refuse(whyConfig, "ignition", "config", "merge")
	}
	if c.Ignition.Config.Replace.Source != nil {
		refuse(whyConfig, "ignition", "config", "replace")
	}
	for i, r := range c.Ignition.Security.TLS.CertificateAuthorities {
		source(r, "ignition", "security", "tls", "certificate_authorities", i)
	}
	if len(c.KernelArguments.ShouldExist)+len(c.KernelArguments.ShouldNotExist) > 0 {
		refuse(whyKargs, "kernel_arguments")
	}
	for i, f := range c.Storage.Files {
		if len(f.Append) > 0 {
			refuse(whyAppend, "storage", "files", i, "append")
		}
		source(f.Contents, "storage", "files", i, "contents")
		if windowsScript(f) {
			refuse(fmt.Sprintf("%s %s", f.Path, whyWindows), "storage", "files", i, "contents")
		}
	}
	for i, l := range c.Storage.Luks {
		source(l.KeyFile, "storage", "luks", i, "key_file")
	}
	return append(out, wipes(c.Storage)...)
}

// windowsScript tells whether a file is a script with CRLF at its lines' ends. What YAML
// itself holds in a block has none any more; a local file comes as it is.
func windowsScript(f types.File) bool {
	if f.Contents.Source == nil || util.NotEmpty(f.Contents.Compression) {
		return false
	}
	u, err := dataurl.DecodeString(*f.Contents.Source)
	if err != nil {
		return false // another scheme
	}
	first, _, _ := bytes.Cut(u.Data, []byte("\n"))
	if !bytes.HasPrefix(first, []byte("#!")) && filepath.Ext(f.Path) != ".sh" {
		return false
	}
	// After the first line there may be an archive, in which CRLF is no line's end.
	return bytes.HasSuffix(first, []byte("\r")) || utf8.Valid(u.Data) && bytes.Contains(u.Data, []byte("\r\n"))
}

// wipes lists what would destroy data in a second run.
func wipes(s types.Storage) []refusal {
	var out []refusal
	refuse := func(yes *bool, path ...any) {
		if util.IsTrue(yes) {
			out = append(out, refusal{path, fmt.Sprint(path[len(path)-1], " ", whyWipe)})
		}
	}
	for i, d := range s.Disks {
		refuse(d.WipeTable, "storage", "disks", i, "wipe_table")
		for j, p := range d.Partitions {
			refuse(p.WipePartitionEntry, "storage", "disks", i, "partitions", j, "wipe_partition_entry")
		}
	}
	for i, f := range s.Filesystems {
		refuse(f.WipeFilesystem, "storage", "filesystems", i, "wipe_filesystem")
	}
	for i, l := range s.Luks {
		refuse(l.WipeVolume, "storage", "luks", i, "wipe_volume")
	}
	return out
}
