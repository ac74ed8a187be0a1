package firstboot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"atoll/bundle"
)

const k3sData = "var/lib/rancher/k3s"

// startOver removes what an installation left that was cut off, if the stack has never
// been ready on this disk. K3s and containerd note what they have unpacked, and the note
// is on the disk before the files are: after a power cut a program may be there with no
// bytes in it, and would be taken for whole for ever
// (https://github.com/containerd/containerd/pull/9401). Before the stack was ready once
// there is nothing of anyone's in there. The airgap images stay: they are hashed.
func (p *preparer) startOver() error {
	if _, err := os.Stat(p.path(installedPath)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(p.path(k3sContainerd)); err == nil {
		p.opts.Log.Warn("the last boot was cut off before the stack was ready; installing it from the start")
	}
	return errors.Join(
		removeBut(p.path(k3sData), "agent"),
		removeBut(p.path(k3sData+"/agent"), "images"),
		os.RemoveAll(p.path(k3sImages+"/.cache.json")),
		os.RemoveAll(p.path(k3sConfig+"/k3s.yaml")), // for a cluster that is no more
		os.RemoveAll(p.path("var/lib/kubelet")),
		os.RemoveAll(p.path("var/lib/cni")))
}

// removeBut empties a folder but for one of its entries.
func removeBut(dir, keep string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.Name() != keep {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// containerdConfig makes containerd flush an unpacked layer before it notes that it has
// it, for what is pulled once the stack was ready. K3s reads the folder from its releases
// of early 2026 on (https://github.com/k3s-io/k3s/pull/13680).
const containerdConfig = `version = 3

[plugins.'io.containerd.service.v1.diff-service']
  sync_fs = true
`

func (p *preparer) writeContainerdConfig() error {
	path := p.path(k3sData + "/agent/etc/containerd/config-v3.toml.d/50-atoll.toml")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return bundle.WriteFile(path, func(f *os.File) error {
		_, err := f.WriteString(writtenBy + containerdConfig)
		return err
	})
}

// flush puts all on the disk that the file system of a folder holds.
func flush(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}
