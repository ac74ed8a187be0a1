package registry

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// fileCost is what a file counts beside its size: ext4 has an inode for each 16 KiB.
const fileCost = 16 << 10

// Where Distribution keeps things in the folder.
const (
	blobsDir = "docker/registry/v2/blobs"
	reposDir = "docker/registry/v2/repositories"
)

// linkPath is the file that makes a blob or a manifest one of a repository, in reposDir.
var linkPath = regexp.MustCompile(`^([a-z0-9-]+)/.*/(?:_layers|_manifests/revisions)/([a-z0-9]+)/([0-9a-f]+)/link$`)

// ledger counts what is stored, so that nothing is written beyond what may be.
type ledger struct {
	dir                 string
	quota, share, spare int64

	mu    sync.Mutex
	total int64
	// linked is the size of each blob that a namespace's images have.
	linked map[string]map[string]int64
	// usage is the sum of a namespace's linked blobs and unfinished uploads.
	usage map[string]int64
}

// newLedger counts nothing yet.
func newLedger(dir string, quota, share, spare int64) *ledger {
	return &ledger{dir: dir, quota: quota, share: share, spare: spare, linked: map[string]map[string]int64{}, usage: map[string]int64{}}
}

// full is the error of a write that would be too much.
type full struct{ reason string }

func (e *full) Error() string { return e.reason }

// count reads anew what is in the folder.
func (l *ledger) count() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total, l.linked, l.usage = 0, map[string]map[string]int64{}, map[string]int64{}
	blobs := map[string]int64{}
	err := walkFiles(filepath.Join(l.dir, blobsDir), func(name string, size int64) {
		l.total += size
		if path.Base(name) == "data" { // ALGORITHM/AB/ABCD…/data
			parts := strings.Split(name, "/")
			blobs[parts[0]+":"+parts[len(parts)-2]] = size
		}
	})
	if err != nil {
		return err
	}
	return walkFiles(filepath.Join(l.dir, reposDir), func(name string, size int64) {
		l.total += size
		if m := linkPath.FindStringSubmatch(name); m != nil {
			blob := m[2] + ":" + m[3]
			l.link(m[1], blob, blobs[blob])
		} else if isUpload(name) {
			l.usage[namespaceOf(name)] += size
		}
	})
}

// walkFiles calls f for every file below a folder with its name there and its cost. What goes
// away meanwhile is left out.
func walkFiles(dir string, f func(name string, cost int64)) error {
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return gone(err)
		}
		info, err := e.Info()
		if err != nil {
			return gone(err)
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		f(name, info.Size()+fileCost)
		return nil
	})
	return gone(err)
}

// gone is err unless it says that a file is not there.
func gone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// isUpload says whether a file belongs to an upload that is not finished.
func isUpload(name string) bool { return strings.Contains(name, "/_uploads/") }

// namespaceOf is the namespace of a file's repository; name is the file's in reposDir.
func namespaceOf(name string) string {
	ns, _, _ := strings.Cut(name, "/")
	return ns
}

// link is [ledger.tryLink] without a bound. The caller holds the lock.
func (l *ledger) link(ns, blob string, cost int64) {
	if l.linked[ns] == nil {
		l.linked[ns] = map[string]int64{}
	}
	if _, ok := l.linked[ns][blob]; !ok {
		l.linked[ns][blob] = cost
		l.usage[ns] += cost
	}
}

// reserve counts bytes of a file before they are written, or says why they may not be. ns
// is the namespace whose unfinished upload the file belongs to; empty for another file.
func (l *ledger) reserve(ns string, n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total+n > l.quota {
		return &full{fmt.Sprintf("the registry is full: it has %s; %s", size(l.quota), freeing)}
	}
	if err := l.checkShare(ns, n); err != nil {
		return err
	}
	if l.spare > 0 {
		var st unix.Statfs_t
		if err := unix.Statfs(l.dir, &st); err != nil {
			return fmt.Errorf("asking for free space: %w", err)
		}
		if int64(st.Bavail)*st.Bsize-n < l.spare {
			return &full{fmt.Sprintf("the node's disk is nearly full: its last %s are not for images; %s", size(l.spare), freeing)}
		}
	}
	l.total += n
	if ns != "" {
		l.usage[ns] += n
	}
	return nil
}

// freeing says what helps against a [full].
const freeing = `delete tags that nobody needs; "sudo atoll node registry gc" on the node then frees their space`

// checkShare says why a namespace may have no n more bytes. The caller holds the lock.
func (l *ledger) checkShare(ns string, n int64) error {
	if ns != "" && l.share > 0 && l.usage[ns]+n > l.share {
		return &full{fmt.Sprintf("the share of namespace %s is full: it has %s; %s", ns, size(l.share), freeing)}
	}
	return nil
}

// release takes back what was reserved.
func (l *ledger) release(ns string, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total = max(0, l.total-n)
	if ns != "" {
		l.usage[ns] = max(0, l.usage[ns]-n)
	}
}

// finish notes that n bytes are no unfinished upload of a namespace any more. They count for it
// again once one of its repositories links them.
func (l *ledger) finish(ns string, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.usage[ns] = max(0, l.usage[ns]-n)
}

// tryLink notes that a namespace has a blob, if its share has room for it.
func (l *ledger) tryLink(ns, blob string, cost int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.linked[ns][blob]; !ok {
		if err := l.checkShare(ns, cost); err != nil {
			return err
		}
	}
	l.link(ns, blob, cost)
	return nil
}

// size writes bytes for people.
func size(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
