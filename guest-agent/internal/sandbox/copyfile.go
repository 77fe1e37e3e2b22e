package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// Bounds of what the host may copy in. The guest's memory holds it.
const (
	maxFile   = 1 << 30
	maxTarget = unix.PathMax
)

// copyLocks lets chunks of one file, which a well-behaved host sends one after
// the other, not overlap when it does not.
type copyLocks struct {
	mu   sync.Mutex
	busy map[string]bool
}

func (l *copyLocks) lock(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[name] {
		return false
	}
	if l.busy == nil {
		l.busy = map[string]bool{}
	}
	l.busy[name] = true
	return true
}

func (l *copyLocks) unlock(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.busy, name)
}

// CopyFile writes a piece of a file, a directory or a symbolic link that the
// host sends into the shared directory (kata-agent 2.12). A file appears under
// its name when its last byte has come, and then at once. Symbolic links may say
// anything, but none is followed out of the shared directory.
func (s *Sandbox) CopyFile(req *agent.CopyFileRequest) error {
	name, err := s.sharedName(req.GetPath())
	if err != nil {
		return err
	}
	if req.GetUid() < 0 || req.GetGid() < 0 {
		return invalidf("copy %q: negative owner", req.GetPath())
	}
	if !s.copying.lock(name) {
		return invalidf("copy %q: another piece is being written", req.GetPath())
	}
	defer s.copying.unlock(name)
	if err := s.copyFile(name, req); err != nil {
		return fmt.Errorf("copy %q: %w", req.GetPath(), err)
	}
	return nil
}

// copyFile does it. What is mounted below the shared directory are volumes, maybe
// such as the host cannot read: it does not write to them, nor remove them. That
// is told before anything is done where it is known by then; it holds in any case
// (see beneath), also for a volume that is mounted meanwhile.
func (s *Sandbox) copyFile(name string, req *agent.CopyFileRequest) error {
	if s.storages.below(path.Join(sharedDir, name)) {
		return errMounted
	}
	c, err := s.copier(name, req)
	if err != nil {
		return err
	}
	defer func() { _ = c.dir.Close() }()
	switch err := c.dir.free(c.name); {
	case err != nil:
		return err
	case req.GetFileMode()&unix.S_IFMT == unix.S_IFREG:
		return c.file()
	case req.GetFileMode()&unix.S_IFMT == unix.S_IFDIR:
		return c.directory()
	case req.GetFileMode()&unix.S_IFMT == unix.S_IFLNK:
		return c.symlink()
	}
	return invalidf("neither a file nor a directory nor a symbolic link")
}

// copier opens the directory that something is copied into, making it if need be:
// it gets the file's owner then.
func (s *Sandbox) copier(name string, req *agent.CopyFileRequest) (copier, error) {
	shared, err := s.root.Open(sharedDir)
	if err != nil {
		return copier{}, fmt.Errorf("open the shared directory: %w", err)
	}
	defer func() { _ = shared.Close() }()
	// dir_mode has the bits of Go's os.FileMode, not of st_mode.
	dir, made, err := beneath{shared}.makeDir(path.Dir(name), uint32(fs.FileMode(req.GetDirMode()).Perm()))
	if err != nil {
		return copier{}, err
	}
	if made {
		if err := unix.Fchownat(int(dir.Fd()), "", int(req.GetUid()), int(req.GetGid()), unix.AT_EMPTY_PATH); err != nil {
			return copier{}, errors.Join(fmt.Errorf("give the directory to its owner: %w", err), dir.Close())
		}
	}
	return copier{dir: dir, name: path.Base(name), req: req}, nil
}

// sharedName returns path relative to the shared directory.
func (s *Sandbox) sharedName(path string) (string, error) {
	rel, err := s.rel(path)
	if err != nil {
		return "", err
	}
	name, ok := strings.CutPrefix(rel, sharedDir+"/")
	if !ok || strings.ContainsRune(name, 0) {
		return "", invalidf("path %q is not below %s", path, filepath.Join(GuestDir, sharedDir))
	}
	return name, nil
}

type copier struct {
	dir  beneath // where it goes
	name string  // in there
	req  *agent.CopyFileRequest
}

// temporary is a name beside the file that depends on the whole name, so that
// no two files share one.
func (c copier) temporary() string {
	sum := sha256.Sum256([]byte(c.name))
	return ".incoming-" + hex.EncodeToString(sum[:12])
}

func (c copier) file() error {
	size, offset, data := c.req.GetFileSize(), c.req.GetOffset(), c.req.GetData()
	if size < 0 || size > maxFile || offset < 0 || offset > size || int64(len(data)) > size-offset {
		return invalidf("size %d, offset %d and %d bytes do not fit together", size, offset, len(data))
	}
	tmp := c.temporary()
	flags := unix.O_WRONLY | unix.O_NONBLOCK // a container may have put a pipe there, which must not hold us
	if offset == 0 {
		if err := c.dir.removeAll(tmp); err != nil {
			return err
		}
		flags |= unix.O_CREAT | unix.O_EXCL
	}
	f, err := c.dir.entry(tmp, flags, 0o600)
	if err != nil {
		return err
	}
	full, err := c.piece(f, offset, data, size)
	if err = errors.Join(err, f.Close()); err != nil || !full {
		return err
	}
	return c.place(tmp)
}

// piece appends data, which must follow what is there, and reports whether the
// file is complete.
func (c copier) piece(f *os.File, offset int64, data []byte, size int64) (full bool, err error) {
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !fi.Mode().IsRegular() {
		return false, invalidf("what has come of it was replaced")
	}
	if fi.Size() != offset {
		return false, invalidf("piece at offset %d, but %d bytes have come", offset, fi.Size())
	}
	if _, err := f.WriteAt(data, offset); err != nil {
		return false, err
	}
	if offset+int64(len(data)) != size {
		return false, nil
	}
	// The owner first: changing it clears the set-id bits.
	if err := f.Chown(int(c.req.GetUid()), int(c.req.GetGid())); err != nil {
		return false, err
	}
	return true, f.Chmod(fileMode(c.req.GetFileMode()))
}

// place gives the finished file or link its name, replacing what is there.
func (c copier) place(tmp string) error {
	err := c.makeRoom()
	if err == nil {
		err = c.dir.rename(tmp, c.name)
	}
	if err != nil {
		return errors.Join(err, c.dir.removeAll(tmp))
	}
	return nil
}

// makeRoom removes a directory in whose place something else comes. One with
// volumes in it stays whole.
func (c copier) makeRoom() error {
	if kind, err := c.dir.kind(c.name); err != nil || kind != unix.S_IFDIR {
		return err
	}
	if err := c.holdsNoMount(); err != nil {
		return err
	}
	return c.dir.removeAll(c.name)
}

// holdsNoMount keeps a directory with volumes in it from being emptied around
// them. The request's path may lead to it through links, so that the table of
// storages knows it by another one.
func (c copier) holdsNoMount() error {
	f, err := c.dir.entry(c.name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	path, err := os.Readlink(fdPath(f))
	if err != nil {
		return err
	}
	found, err := mountsBelow(path)
	if err == nil && len(found) > 0 {
		err = errMounted
	}
	return err
}

func (c copier) directory() error {
	kind, err := c.dir.kind(c.name)
	if err != nil {
		return err
	}
	if kind != unix.S_IFDIR {
		if err := c.dir.removeAll(c.name); err != nil {
			return err
		}
	}
	made, err := c.dir.newDir(c.name, 0o700)
	if err != nil {
		return err
	}
	_ = made.Close()
	f, err := c.dir.entry(c.name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := f.Chown(int(c.req.GetUid()), int(c.req.GetGid())); err != nil {
		return err
	}
	return f.Chmod(fileMode(c.req.GetFileMode()))
}

func (c copier) symlink() error {
	target := string(c.req.GetData())
	if target == "" || len(target) >= maxTarget || strings.ContainsRune(target, 0) {
		return invalidf("malformed symbolic link")
	}
	tmp := c.temporary()
	if err := c.dir.removeAll(tmp); err != nil {
		return err
	}
	if err := c.dir.symlink(target, tmp); err != nil {
		return err
	}
	if err := c.dir.lchown(tmp, int(c.req.GetUid()), int(c.req.GetGid())); err != nil {
		return errors.Join(err, c.dir.removeAll(tmp))
	}
	return c.place(tmp)
}
