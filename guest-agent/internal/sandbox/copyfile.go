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
	"syscall"

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
	shared, err := s.root.OpenRoot(sharedDir)
	if err != nil {
		return fmt.Errorf("open the shared directory: %w", err)
	}
	defer func() { _ = shared.Close() }()
	c := copier{root: shared, name: name, req: req}
	if err := c.parents(); err != nil {
		return fmt.Errorf("copy %q: %w", req.GetPath(), err)
	}
	if c, err = s.besideVolumes(c); err != nil {
		return fmt.Errorf("copy %q: %w", req.GetPath(), err)
	}
	defer func() { _ = c.root.Close() }()
	switch req.GetFileMode() & unix.S_IFMT {
	case unix.S_IFREG:
		err = c.file()
	case unix.S_IFDIR:
		err = c.directory()
	case unix.S_IFLNK:
		err = c.symlink()
	default:
		return invalidf("copy %q: neither a file nor a directory nor a symbolic link", req.GetPath())
	}
	if err != nil {
		return fmt.Errorf("copy %q: %w", req.GetPath(), err)
	}
	return nil
}

// besideVolumes opens the directory that something is copied into, for the rest
// to be done there. What is mounted below the shared directory are volumes, maybe
// such as the host cannot read: it does not write to them, nor remove them.
func (s *Sandbox) besideVolumes(c copier) (copier, error) {
	mounted := invalidf("a volume is mounted there")
	if s.storages.below(path.Join(sharedDir, c.name)) {
		return c, mounted
	}
	here, err := c.root.Stat(".")
	if err != nil {
		return c, err
	}
	dir, err := c.root.OpenRoot(path.Dir(c.name))
	if err != nil {
		return c, err
	}
	for _, name := range []string{".", path.Base(c.name)} {
		switch fi, err := dir.Lstat(name); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return c, errors.Join(err, dir.Close())
		case fi.Sys().(*syscall.Stat_t).Dev != here.Sys().(*syscall.Stat_t).Dev: //nolint:forcetypeassert // so it is on Linux
			return c, errors.Join(mounted, dir.Close())
		}
	}
	return copier{root: dir, name: path.Base(c.name), req: c.req}, nil
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
	root *os.Root // the shared directory; once its parents are there, the direct one
	name string   // below it, clean
	req  *agent.CopyFileRequest
}

// parents makes the directories above; the direct one gets the file's owner.
func (c copier) parents() error {
	dir := path.Dir(c.name)
	if dir == "." {
		return nil
	}
	if _, err := c.root.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// dir_mode has the bits of Go's os.FileMode, not of st_mode.
	mode := fs.FileMode(c.req.GetDirMode()).Perm()
	if err := c.root.MkdirAll(dir, mode); err != nil {
		return err
	}
	return c.root.Chown(dir, int(c.req.GetUid()), int(c.req.GetGid()))
}

// temporary is a name beside the file that depends on the whole name, so that
// no two files share one.
func (c copier) temporary() string {
	sum := sha256.Sum256([]byte(c.name))
	return path.Join(path.Dir(c.name), ".incoming-"+hex.EncodeToString(sum[:12]))
}

func (c copier) file() error {
	size, offset, data := c.req.GetFileSize(), c.req.GetOffset(), c.req.GetData()
	if size < 0 || size > maxFile || offset < 0 || offset > size || int64(len(data)) > size-offset {
		return invalidf("size %d, offset %d and %d bytes do not fit together", size, offset, len(data))
	}
	tmp := c.temporary()
	flags := os.O_WRONLY
	if offset == 0 {
		if err := c.root.RemoveAll(tmp); err != nil {
			return err
		}
		flags |= os.O_CREATE | os.O_EXCL
	}
	f, err := c.root.OpenFile(tmp, flags, 0o600)
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
	if fi, err := c.root.Lstat(c.name); err == nil && fi.IsDir() {
		if err := c.holdsNoMount(); err != nil {
			return errors.Join(err, c.root.Remove(tmp))
		}
		if err := c.root.RemoveAll(c.name); err != nil {
			return err
		}
	}
	return c.root.Rename(tmp, c.name)
}

// holdsNoMount keeps volumes from being emptied with a directory that holds them.
// The request's path may lead to it through links, so that the table of storages
// knows it by another one.
func (c copier) holdsNoMount() error {
	f, err := c.root.Open(c.name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	path, err := os.Readlink(fdPath(f))
	if err != nil {
		return err
	}
	found, err := mountsBelow(strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(path)) // proc_pid_mountinfo(5)
	if err == nil && len(found) > 0 {
		err = invalidf("a volume is mounted below it")
	}
	return err
}

func (c copier) directory() error {
	if fi, err := c.root.Lstat(c.name); err == nil && !fi.IsDir() {
		if err := c.root.Remove(c.name); err != nil {
			return err
		}
	}
	if err := c.root.Mkdir(c.name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := c.root.Lchown(c.name, int(c.req.GetUid()), int(c.req.GetGid())); err != nil {
		return err
	}
	return c.root.Chmod(c.name, fileMode(c.req.GetFileMode()))
}

func (c copier) symlink() error {
	target := string(c.req.GetData())
	if target == "" || len(target) >= maxTarget || strings.ContainsRune(target, 0) {
		return invalidf("malformed symbolic link")
	}
	tmp := c.temporary()
	if err := c.root.RemoveAll(tmp); err != nil {
		return err
	}
	if err := c.root.Symlink(target, tmp); err != nil {
		return err
	}
	if err := c.root.Lchown(tmp, int(c.req.GetUid()), int(c.req.GetGid())); err != nil {
		return err
	}
	return c.place(tmp)
}
