package images

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
	"atoll/bundle/bounds"
)

// k3sDownloads is where releases of k3s are, below their version.
const k3sDownloads = "https://github.com/k3s-io/k3s/releases/download/"

// k3sFile is a file of a k3s release: its name on the node and in the release, and how many
// bytes it may have.
type k3sFile struct {
	name, remote string
	limit        int64
}

func k3sFiles(arch string) []k3sFile {
	binary := "k3s"
	if arch != "amd64" {
		binary += "-" + arch
	}
	airgap := "k3s-airgap-images-" + arch + ".tar.zst"
	return []k3sFile{{"k3s", binary, bounds.K3sBinary}, {"k3s-images.txt", "k3s-images.txt", bounds.K3sImages}, {airgap, airgap, bounds.K3sAirgap}}
}

// k3sBase is the folder or URL of the definition's k3s release, as a lock writes it: the
// plus of a version stays one, so that a lock is the same however the URL was written.
func k3sBase(d *bundle.Definition) string {
	base := k3sDownloads + d.K3s.Version
	if d.K3s.Release != "" {
		base = strings.TrimRight(d.K3s.Release, "/")
	}
	if strings.Contains(base, "://") {
		base = strings.NewReplacer("%2B", "+", "%2b", "+").Replace(base)
	}
	return base
}

// escapePlus writes the pluses of a URL's path the way every server reads them: some, like
// S3, take a plain one for a space.
func escapePlus(u string) string {
	parsed, err := url.Parse(u)
	if err != nil {
		return u // which asking for it will tell
	}
	parsed.RawPath = strings.ReplaceAll(parsed.EscapedPath(), "+", "%2B")
	return parsed.String()
}

// resolveK3s locks the release's files: their checksums as the release states them,
// or, for a file it states none of, as it is now.
func (c *client) resolveK3s(ctx context.Context, d *bundle.Definition) ([]bundle.LockedFile, error) {
	if u, err := url.Parse(d.K3s.Release); err == nil && u.User != nil {
		return nil, fmt.Errorf("k3s.release holds a user or a password, which the lock would hold too: take it out, and put \"username\" and \"password\" for %q under \"auths\" in docker's config.json", u.Host)
	}
	base, sums, err := c.findK3s(ctx, d)
	if err != nil {
		return nil, err
	}
	var out []bundle.LockedFile
	var errs []error
	for _, f := range k3sFiles(d.Arch()) {
		locked := bundle.LockedFile{Name: f.name, URL: base + "/" + f.remote, Digest: sums[f.remote]}
		if err := c.measure(ctx, c.fileSource(d, locked.URL), f.limit, &locked); err != nil {
			errs = append(errs, explainFile(err, f.name, locked.URL))
		}
		out = append(out, locked)
	}
	return out, errors.Join(errs...)
}

// findK3s gives the folder or URL of the release, and its checksums. What the definition
// names may be that, or what holds all releases by their versions, like GitHub's.
func (c *client) findK3s(ctx context.Context, d *bundle.Definition) (string, map[string]v1.Hash, error) {
	name := "/sha256sum-" + d.Arch() + ".txt"
	base := k3sBase(d)
	sums, err := c.k3sSums(ctx, d, base+name)
	if (notFound(err) || isNotExist(err)) && path.Base(base) != d.K3s.Version {
		below := base + "/" + d.K3s.Version
		if sums, err := c.k3sSums(ctx, d, below+name); err == nil {
			return below, sums, nil
		}
	}
	return base, sums, err
}

// fileSource is where a locked file is read from.
func (c *client) fileSource(d *bundle.Definition, file string) source {
	if folder := c.Sources["k3s"]; folder != "" {
		return source{host: folder, path: filepath.Join(folder, path.Base(file))}
	}
	if local, ok := strings.CutPrefix(file, "file://"); ok {
		return source{host: path.Dir(local), path: local}
	}
	if !strings.HasPrefix(file, "http://") && !strings.HasPrefix(file, "https://") {
		local := d.Path(file)
		return source{host: path.Dir(local), path: local}
	}
	return c.loginSource(escapePlus(file), "k3s=FOLDER")
}

func explainFile(err error, name, url string) error {
	return fmt.Errorf("file %s of the k3s release: %w (from %s; another place is given by k3s.release or --source k3s=FOLDER)", name, err, url)
}

// k3sSums reads the output of sha256sum.
func (c *client) k3sSums(ctx context.Context, d *bundle.Definition, url string) (map[string]v1.Hash, error) {
	r := c.stream(ctx, c.fileSource(d, url), -1)
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, bounds.K3sSums+1))
	if err == nil && len(data) > bounds.K3sSums {
		err = tooLarge(bounds.K3sSums)
	}
	if err != nil {
		return nil, explainFile(err, path.Base(url), url)
	}
	sums, err := parseSums(data)
	if err != nil {
		return nil, explainFile(err, path.Base(url), url)
	}
	return sums, nil
}

func parseSums(data []byte) (map[string]v1.Hash, error) {
	sums := map[string]v1.Hash{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 2 {
			continue
		}
		h, err := v1.NewHash("sha256:" + strings.ToLower(fields[0]))
		if err != nil {
			return nil, fmt.Errorf("line %q is not one of sha256sum", lines.Text())
		}
		sums[path.Base(strings.TrimPrefix(fields[1], "*"))] = h
	}
	if len(sums) == 0 {
		return nil, errors.New("it has no checksums")
	}
	return sums, nil
}

// tooLarge says that a file of a k3s release is none.
func tooLarge(limit int64) error {
	return fmt.Errorf("it has more than %d MiB, which no k3s release has", limit>>20)
}

// measure fills in a file's size, and its digest where that is not known. A file of more
// than limit bytes is an error.
func (c *client) measure(ctx context.Context, src source, limit int64, f *bundle.LockedFile) error {
	if f.Digest.Hex != "" || src.path != "" {
		body, err := src.open(ctx, part{size: -1})
		if err != nil {
			return err
		}
		body.Close()
		if body.total > limit {
			return tooLarge(limit)
		}
		if f.Digest.Hex != "" && body.total >= 0 {
			f.Size = body.total
			return nil
		}
	}
	r := c.stream(ctx, src, -1)
	defer r.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	if n > limit {
		return tooLarge(limit)
	}
	f.Size = n
	if f.Digest.Hex == "" {
		f.Digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	}
	return nil
}
