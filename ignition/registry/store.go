package registry

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// store is Distribution's storage driver for a folder. Its own one does not sync the folders that
// it makes and moves files to, counts nothing, and links exporters of telemetry.
//
// When PutContent, Commit or Move return, what they did has been synced to disk, but for
// what belongs to an unfinished upload: no upload is resumed by another process.
type store struct {
	root   *os.Root
	ledger *ledger
}

// tempDir has files that are not whole yet.
const tempDir = "tmp"

// openStore opens a folder, and removes what an earlier process left half written.
func openStore(dir string, l *ledger) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &store{root: root, ledger: l}
	if err := errors.Join(root.RemoveAll(tempDir), s.mkdir(tempDir), syncDir(root, ".")); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return s, nil
}

func (s *store) Name() string { return driverName }

// local is the name in the folder of a path of Distribution's.
func local(p string) string {
	if name := strings.TrimPrefix(path.Clean(p), "/"); name != "" {
		return name
	}
	return "."
}

// notFound is err, in Distribution's words if a file is not there.
func notFound(p string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return driver.PathNotFoundError{Path: p, DriverName: driverName}
	}
	return err
}

func (s *store) GetContent(_ context.Context, p string) ([]byte, error) {
	data, err := s.root.ReadFile(local(p))
	return data, notFound(p, err)
}

func (s *store) PutContent(ctx context.Context, p string, content []byte) error {
	name := local(p)
	if err := s.link(name); err != nil {
		return fail(ctx, err)
	}
	if err := s.ledger.reserve(uploader(name), int64(len(content))+fileCost); err != nil {
		return fail(ctx, err)
	}
	if old, err := s.root.Stat(name); err == nil {
		s.ledger.release(uploader(name), old.Size()+fileCost)
	}
	temp := path.Join(tempDir, uuid.NewString())
	err := s.write(temp, content, !isUpload(name))
	if err == nil {
		err = s.rename(temp, name)
	}
	if err != nil {
		s.root.Remove(temp) // may not be there
		s.ledger.release(uploader(name), int64(len(content))+fileCost)
	}
	return fail(ctx, err)
}

// fail returns err, and lets the request of ctx know if it is for want of space: Distribution
// would only say that something is wrong.
func fail(ctx context.Context, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = &full{"the node's disk is full; " + freeing}
	}
	var f *full
	if to, ok := ctx.Value(fullKey{}).(*atomic.Pointer[full]); ok && errors.As(err, &f) {
		to.Store(f)
	}
	return err
}

type fullKey struct{}

// uploader is the namespace whose unfinished upload a file belongs to; empty if to none.
func uploader(name string) string {
	if in, ok := strings.CutPrefix(name, reposDir+"/"); ok && isUpload(in) {
		return namespaceOf(in)
	}
	return ""
}

// link counts a blob as a namespace's, if name is what makes it so.
func (s *store) link(name string) error {
	in, ok := strings.CutPrefix(name, reposDir+"/")
	m := linkPath.FindStringSubmatch(in)
	if !ok || m == nil {
		return nil
	}
	info, err := s.root.Stat(blobFile(m[2], m[3]))
	if err != nil {
		return err
	}
	return s.ledger.tryLink(m[1], m[2]+":"+m[3], info.Size()+fileCost)
}

// blobFile is the name of a blob's file.
func blobFile(algorithm, hex string) string {
	return path.Join(blobsDir, algorithm, hex[:min(2, len(hex))], hex, "data")
}

func (s *store) write(name string, content []byte, sync bool) error {
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// rename moves a file whose content is on disk, and syncs that it is where it is.
func (s *store) rename(from, to string) error {
	if err := s.mkdir(path.Dir(to)); err != nil {
		return err
	}
	if err := s.root.Rename(from, to); err != nil || isUpload(to) {
		return err
	}
	return syncDir(s.root, path.Dir(to))
}

// mkdir makes a folder and those above it, and syncs that they are there.
func (s *store) mkdir(dir string) error {
	if _, err := s.root.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.mkdir(path.Dir(dir)); err != nil {
		return err
	}
	if err := s.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if isUpload(dir + "/") {
		return nil
	}
	return syncDir(s.root, path.Dir(dir))
}

// syncDir makes what was made or renamed in a folder survive a power cut.
func syncDir(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *store) Reader(_ context.Context, p string, offset int64) (io.ReadCloser, error) {
	if offset < 0 {
		return nil, driver.InvalidOffsetError{Path: p, Offset: offset, DriverName: driverName}
	}
	f, err := s.root.Open(local(p))
	if err != nil {
		return nil, notFound(p, err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (s *store) Writer(ctx context.Context, p string, appending bool) (driver.FileWriter, error) {
	name := local(p)
	ns := uploader(name)
	if err := s.mkdir(path.Dir(name)); err != nil {
		return nil, err
	}
	flag := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	info, err := s.root.Stat(name)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case err != nil:
		if err := s.ledger.reserve(ns, fileCost); err != nil {
			return nil, fail(ctx, err)
		}
	case !appending:
		s.ledger.release(ns, info.Size())
		flag |= os.O_TRUNC
	}
	f, err := s.root.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	w := &writer{store: s, f: f, name: name, ns: ns, ctx: ctx}
	if info != nil && appending {
		w.size = info.Size()
	}
	return w, nil
}

// writer writes a file. It is not used by several at a time.
type writer struct {
	store  *store
	f      *os.File
	name   string
	ns     string
	ctx    context.Context
	size   int64
	closed bool
}

func (w *writer) Write(p []byte) (int, error) {
	if err := w.store.ledger.reserve(w.ns, int64(len(p))); err != nil {
		return 0, fail(w.ctx, err)
	}
	n, err := w.f.Write(p)
	w.size += int64(n)
	w.store.ledger.release(w.ns, int64(len(p)-n))
	return n, fail(w.ctx, err)
}

func (w *writer) Size() int64 { return w.size }

func (w *writer) Close() error {
	if w.closed {
		return nil // Distribution closes what it has cancelled
	}
	w.closed = true
	return w.f.Close()
}

func (w *writer) Cancel(ctx context.Context) error {
	if !w.closed {
		w.Close() // it goes away
	}
	return w.store.Delete(ctx, "/"+w.name)
}

func (w *writer) Commit(context.Context) error {
	if w.closed {
		return fs.ErrClosed
	}
	return w.f.Sync()
}

func (s *store) Stat(_ context.Context, p string) (driver.FileInfo, error) {
	info, err := s.root.Stat(local(p))
	if err != nil {
		return nil, notFound(p, err)
	}
	f := driver.FileInfoFields{Path: p, ModTime: info.ModTime(), IsDir: info.IsDir()}
	if !f.IsDir {
		f.Size = info.Size()
	}
	return driver.FileInfoInternal{FileInfoFields: f}, nil
}

func (s *store) List(_ context.Context, p string) ([]string, error) {
	d, err := s.root.Open(local(p))
	if err != nil {
		return nil, notFound(p, err)
	}
	names, err := d.Readdirnames(0)
	for i, name := range names {
		names[i] = path.Join(p, name)
	}
	return names, errors.Join(err, d.Close())
}

func (s *store) Move(ctx context.Context, from, to string) error {
	source, dest := local(from), local(to)
	info, err := s.root.Stat(source)
	if err != nil {
		return notFound(from, err)
	}
	if old, err := s.root.Stat(dest); err == nil {
		s.ledger.release("", old.Size()+fileCost)
	}
	if err := s.rename(source, dest); err != nil {
		return err
	}
	if ns := uploader(source); ns != "" {
		s.ledger.finish(ns, info.Size()+fileCost)
	}
	return nil
}

func (s *store) Delete(_ context.Context, p string) error {
	name := local(p)
	if _, err := s.root.Stat(name); err != nil {
		return notFound(p, err)
	}
	var cost int64
	if err := walkFiles(filepath.Join(s.root.Name(), name), func(_ string, c int64) { cost += c }); err != nil {
		return err
	}
	if err := s.root.RemoveAll(name); err != nil {
		return err
	}
	s.ledger.release(uploader(name+"/"), cost)
	if isUpload(name + "/") {
		return nil
	}
	return syncDir(s.root, path.Dir(name))
}

// touch makes a file young, if it is there.
func (s *store) touch(name string) {
	now := time.Now()
	s.root.Chtimes(name, now, now)
}

func (s *store) RedirectURL(*http.Request, string) (string, error) { return "", nil }

func (s *store) Walk(ctx context.Context, p string, f driver.WalkFn, options ...func(*driver.WalkOptions)) error {
	return driver.WalkFallback(ctx, s, p, f, options...)
}
