package firstboot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"atoll/bundle"
)

// RegistryAddr is where the node's registry listens: on loopback, for containerd alone.
const RegistryAddr = "127.0.0.1:5000"

const (
	k3sBinary     = "usr/local/bin/k3s"
	k3sImages     = "var/lib/rancher/k3s/agent/images"
	k3sConfig     = "etc/rancher/k3s"
	k3sContainerd = "var/lib/rancher/k3s/agent/containerd"
	machineID     = "etc/machine-id"
	nodeConfig    = k3sConfig + "/config.yaml.d/10-atoll-node.yaml"
)

// writtenBy starts the files that this package writes.
const writtenBy = "# Written by atoll at boot.\n"

// unpackedRatio is how much larger than its compressed layers an image is on the node:
// the layers stay in containerd's store, and are unpacked beside it to twice their size.
const unpackedRatio = 3

// Prepare puts k3s and its configuration in place below root, which is "/" on a node:
// a sound clock, a unique node name, the registries, the binary and its airgap images
// out of the bundle. It runs at every boot; what is in place already is left alone.
func Prepare(ctx context.Context, b *bundle.Bundle, root string, o *Options) error {
	opts := o.withDefaults()
	f, err := readFacts(root)
	if err != nil {
		return fmt.Errorf("preparing node: %w", err)
	}
	plan, err := b.Plan()
	if err != nil {
		return fmt.Errorf("preparing node: %w", err)
	}
	opts.tell(func(s *bundle.Status) { *s = newStatus(f.Name, plan) })
	for _, s := range ownSecrets {
		if err := s.place(filepath.Join(root, SecretsPath), filepath.Dir(opts.Status)); err != nil {
			opts.Log.Warn("making up a secret of the node's own", "secret", s.Name, "err", err)
		}
	}
	return opts.phase(phasePrepare, func() error {
		p := preparer{ctx: ctx, b: b, root: root, facts: f, opts: opts}
		return p.run()
	})
}

// newStatus has every phase of a node, pending.
func newStatus(name string, plan *bundle.Plan) bundle.Status {
	s := bundle.Status{Appliance: name, State: bundle.StateRunning}
	names := []string{phasePrepare, phaseRegistry, phaseK3s, phaseWritable}
	if len(plan.Secrets) > 0 {
		names = append(names, phaseSecrets)
	}
	for _, p := range plan.Phases {
		names = append(names, p.Name)
	}
	for _, n := range names {
		s.Phases = append(s.Phases, bundle.PhaseStatus{Name: n, State: bundle.StatePending})
	}
	return s
}

type preparer struct {
	ctx   context.Context
	b     *bundle.Bundle
	root  string
	facts facts
	opts  Options
}

func (p *preparer) path(name string) string { return filepath.Join(p.root, name) }

func (p *preparer) run() error {
	if err := p.b.Check(); err != nil {
		return err
	}
	lock, err := p.b.Lock()
	if err != nil {
		return err
	}
	if want := "linux/" + runtime.GOARCH; lock.Platform != want {
		return fmt.Errorf("the bundle is for %s, this node is %s", lock.Platform, want)
	}
	if err := p.setClock(); err != nil {
		return err
	}
	if err := p.startOver(); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(k3sBinary), k3sImages, filepath.Dir(nodeConfig)} {
		if err := os.MkdirAll(p.path(dir), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(p.writeNodeName(), p.writeRegistries(), p.writeContainerdConfig(), p.checkDisk(lock), p.placeRelease())
}

// checkDisk says before anything is installed that the disk is too small for it, and
// how large it must be. Kubelet would say so much later, by evicting pods.
func (p *preparer) checkDisk(lock *bundle.Lock) error {
	if _, err := os.Stat(p.path(k3sContainerd)); err == nil {
		return nil // images are there already
	}
	sizes := map[string]int64{} // an image with two names is stored once
	for _, im := range lock.Images {
		sizes[im.Manifest.Hex] = im.Size
	}
	var need int64
	for _, n := range sizes {
		need += unpackedRatio * n
	}
	return checkSpace(p.path(k3sImages), need)
}

// setClock raises a clock that shows a time before the appliance was made, as that of
// a machine with an empty battery does: certificates made then would not be valid later.
func (p *preparer) setClock() error {
	floor := time.Unix(p.facts.Epoch, 0)
	if p.root != "/" || !time.Now().Before(floor) {
		return nil
	}
	p.opts.Log.Warn("clock is before the appliance was made; setting it", "clock", time.Now(), "to", floor)
	ts := unix.NsecToTimespec(floor.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("setting the clock: %w", err)
	}
	return nil
}

// writeNodeName gives the node a name of its own, which stays the same: k3s refuses a
// name that another machine has joined with. The first name is kept, whatever the
// hostname becomes later.
func (p *preparer) writeNodeName() error {
	if _, err := os.Stat(p.path(nodeConfig)); err == nil {
		return nil
	}
	name := p.facts.Hostname
	if name == "" {
		id, err := os.ReadFile(p.path(machineID))
		if err != nil {
			return fmt.Errorf("naming the node: %w", err)
		}
		if len(id) < 8 {
			return fmt.Errorf("naming the node: /%s is not set", machineID)
		}
		name = p.facts.Name + "-" + string(id[:8])
	}
	return p.writeYAML(nodeConfig, map[string]any{"node-name": name})
}

// writeRegistries sends the pulls of every registry that the bundle has images of to
// the node's own. With disable-default-registry-endpoint there is no fallback to the
// registry itself, which nobody could reach. Each is named: a "*" does not apply to
// Docker Hub in every k3s (k3s#11857); it stands for those that the bundle lacks, so that
// their pulls fail at once and not after a time-out. What users push has a registry of its
// own, which containerd knows by the name that pods know it by. A file that someone else put there
// stays: he knows what he does.
func (p *preparer) writeRegistries() error {
	const name = k3sConfig + "/registries.yaml"
	if data, err := os.ReadFile(p.path(name)); err == nil && !strings.HasPrefix(string(data), writtenBy) {
		p.opts.Log.Warn("registries are not Atoll's; left alone", "file", "/"+name)
		return nil
	}
	endpoint := func(addr string) map[string]any { return map[string]any{"endpoint": []string{"http://" + addr}} }
	mirrors := map[string]any{"*": endpoint(RegistryAddr), bundle.NodeRegistry: endpoint(WritableLoopbackAddr)}
	for _, im := range p.b.Images() {
		host, _, _, _, err := bundle.SplitReference(im.Name)
		if err != nil {
			return err
		}
		mirrors[host] = endpoint(RegistryAddr)
	}
	return p.writeYAML(name, map[string]any{"mirrors": mirrors})
}

func (p *preparer) writeYAML(name string, v any) error {
	data, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	return bundle.WriteFile(p.path(name), func(f *os.File) error {
		_, err := f.Write(append([]byte(writtenBy), data...))
		return err
	})
}

// placeRelease copies k3s and its airgap images out of the bundle, at once: what takes
// time is hashing them.
func (p *preparer) placeRelease() error {
	var g errgroup.Group
	g.Go(p.placeBinary)
	g.Go(p.placeImages)
	return g.Wait()
}

func (p *preparer) placeBinary() error {
	if err := p.place("k3s", k3sBinary, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"kubectl", "crictl", "ctr"} {
		link := p.path(filepath.Join(filepath.Dir(k3sBinary), name))
		if err := os.Symlink("k3s", link); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func (p *preparer) placeImages() error {
	files := p.b.Files()
	i := slices.IndexFunc(files, func(f bundle.File) bool { return airgapImages.MatchString(f.Name) })
	if i < 0 {
		return fmt.Errorf("the bundle has no k3s airgap images: %w", bundle.ErrIncomplete)
	}
	// k3s tells a changed file by size and time alone, so its digest is in the name.
	base, ext, _ := strings.Cut(files[i].Name, ".")
	name := fmt.Sprintf("%s-%s.%s", base, files[i].Digest.Hex[:12], ext)
	if err := p.removeOldImages(name); err != nil {
		return err
	}
	if err := p.place(files[i].Name, k3sImages+"/"+name, 0o644); err != nil {
		return err
	}
	// With this file k3s imports the images once and not at every start. It must be there first.
	cache, err := os.OpenFile(p.path(k3sImages+"/.cache.json"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	return cache.Close()
}

// airgapImages is the name of the images in a k3s release.
var airgapImages = regexp.MustCompile(`^k3s-airgap-images-[a-z0-9]+\.tar(\.(zst|gz))?$`)

// removeOldImages removes the airgap images of an earlier bundle.
func (p *preparer) removeOldImages(keep string) error {
	old, err := filepath.Glob(p.path(k3sImages + "/k3s-airgap-images-*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if filepath.Base(path) == keep {
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// place copies a file of the k3s release to its place and hashes it on the way. One
// that is there is hashed too: it costs a second, and a node that starts a damaged
// k3s costs more.
func (p *preparer) place(name, to string, mode fs.FileMode) error {
	r, f, err := p.b.File(bundle.ArtifactK3s, name)
	if err != nil {
		return err
	}
	path := p.path(to)
	if got, err := p.digest(path); err == nil && got == f.Digest.Hex {
		return nil
	}
	if err := checkSpace(filepath.Dir(path), f.Size); err != nil {
		return err
	}
	p.opts.Log.Info("placing", "file", path, "bytes", f.Size)
	return bundle.WriteFile(path, func(out *os.File) error {
		h := sha256.New()
		if _, err := io.Copy(io.MultiWriter(out, h), ctxReader{p.ctx, r}); err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != f.Digest.Hex {
			bad := f.Digest
			bad.Hex = got
			return &bundle.CorruptError{Name: "k3s release's " + name + " in the bundle", Want: f.Digest, Got: bad}
		}
		return out.Chmod(mode)
	})
}

func (p *preparer) digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, ctxReader{p.ctx, f}); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// checkSpace fails before a copy that would fill the file system.
func checkSpace(dir string, need int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("asking for free space in %s: %w", dir, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return fmt.Errorf("%s has %d MiB free and needs %d MiB: use a larger disk: %w", dir, free>>20, (need+1<<20-1)>>20, unix.ENOSPC)
	}
	return nil
}

// ctxReader ends a long copy with its context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
