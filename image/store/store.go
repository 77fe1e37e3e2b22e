package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/dm"
)

const (
	layersDir  = "layers"
	stagingDir = "staging"
	mountsDir  = "mounts"
	lockFile   = "lock"
	fsDir      = "fs"
	bootFile   = "boot"

	impliedFile = "implied" // paths, with zero bytes between

	bootIDPath = "/proc/sys/kernel/random/boot_id"
)

// A Key names a layer by what was verified of it.
type Key struct {
	DiffID digest.Digest // of the uncompressed archive
	KeyID  string        // crypt.Private.ID of an encrypted layer; empty otherwise
}

var keyIDForm = regexp.MustCompile(`^[0-9a-f]{0,64}$`)

// name is the directory of the layer: "sha256-<hex>" or "sha256-<hex>+<key>".
func (k Key) name() (string, error) {
	if err := k.DiffID.Validate(); err != nil {
		return "", fmt.Errorf("layer key: %w", err)
	}
	if !keyIDForm.MatchString(k.KeyID) {
		return "", errors.New("layer key: bad key identity")
	}
	n := k.DiffID.Algorithm().String() + "-" + k.DiffID.Encoded()
	if k.KeyID != "" {
		n += "+" + k.KeyID
	}
	return n, nil
}

// A Store owns one directory. It is safe for concurrent use within a process;
// a second process cannot open the same directory.
type Store struct {
	dir     string
	boot    []byte
	memory  *memory // nil: the layers lie where dir lies
	budget  Usage
	images  bool // layers are kept as such
	share   int  // percent of the file system that is the budget; 0: none
	keep    bool // layers of an earlier process of this boot
	unowned bool // see WithoutOwners
	locks   []*os.File
	root    *os.File // for short names in mount options

	recovered []*Mount // set by Open

	mu     sync.Mutex
	layers map[string]*layerState // complete ones, by directory name
	graves map[string]Usage       // what is being removed, by path
	uses   uint64                 // counts them, to know the least recent

	sweeping sync.Mutex // one removes at a time
}

// An Option changes how a store is opened.
type Option func(*Store)

// InMemory keeps layers and what is written to mounts in memory, within a
// limit: a tmpfs is mounted over the directory. A zero member of the limit means
// the kernel's default, half of the memory and as many inodes as pages in it. The
// tmpfs outlives the process if mounts do.
func InMemory(limit Usage) Option { return func(s *Store) { s.memory = &memory{limit: limit} } }

// WithBudget makes the store remove layers that nothing refers to, the least
// recently used first, whenever all layers together exceed the budget.
func WithBudget(budget Usage) Option { return func(s *Store) { s.budget = budget } }

// WithShare is WithBudget for a part of the file system that the store lies on,
// in percent of its size and of its inodes.
func WithShare(percent int) Option { return func(s *Store) { s.share = percent } }

// Keeping keeps the complete layers that an earlier process left, if it ran since
// the machine was started: they were verified then, and nobody else can write to
// the directory. It is for tools that go on with what was interrupted. Layers
// that are kept as images are not kept.
func Keeping() Option { return func(s *Store) { s.keep = true } }

// WithoutOwners unpacks layers as [unpack.Unowned] says, for somebody without the
// rights of root.
func WithoutOwners() Option { return func(s *Store) { s.unowned = true } }

// Open takes possession of dir: it is made if it is missing, refused if others
// can write to it, and has mode 0700 afterwards. It removes what earlier processes
// left behind: staging directories, layers of another boot, and, unless they are
// kept, layers that no live mount uses.
func Open(dir string, options ...Option) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: abs, layers: map[string]*layerState{}, graves: map[string]Usage{}}
	for _, o := range options {
		o(s)
	}
	if err := s.open(); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("open image store %s: %w", abs, err)
	}
	return s, nil
}

func (s *Store) open() error {
	boot, err := os.ReadFile(bootIDPath)
	if err != nil {
		return err
	}
	s.boot = bytes.TrimSpace(boot)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := checkOwned(s.dir); err != nil {
		return err
	}
	if s.memory != nil {
		// Locked before it is covered: who comes later sees only the tmpfs.
		if err := s.lockFile(s.dir, os.O_RDONLY); err != nil {
			return err
		}
		if err := s.memory.mount(s.dir); err != nil {
			return err
		}
	}
	if err := s.lockFile(filepath.Join(s.dir, lockFile), os.O_RDWR|os.O_CREATE); err != nil {
		return err
	}
	if s.root, err = os.Open(s.dir); err != nil {
		return err
	}
	if err := s.reckon(); err != nil {
		return err
	}
	if s.images {
		if err := dm.Available(); err != nil {
			return fmt.Errorf("layers cannot be kept as images: %w", err)
		}
	}
	for _, d := range []string{layersDir, stagingDir, mountsDir} {
		if err := os.Mkdir(filepath.Join(s.dir, d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := checkOwned(filepath.Join(s.dir, d)); err != nil {
			return err
		}
	}
	return s.recover()
}

// reckon turns a share of the file system into a budget.
func (s *Store) reckon() error {
	if s.share == 0 {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(s.root.Fd()), &fs); err != nil {
		return err
	}
	part := func(of int64) int64 { return of / 100 * int64(s.share) }
	s.budget = Usage{Bytes: part(int64(fs.Blocks) * fs.Bsize), Inodes: part(int64(fs.Files))}
	return nil
}

func (s *Store) lockFile(path string, flags int) error {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	s.locks = append(s.locks, f)
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("in use by another process: %w", err)
	}
	return nil
}

// checkOwned refuses a directory that is a link, or that another user owns or
// could have written into. One that others could only read is closed to them.
func checkOwned(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s must be a directory that only this user can write to", dir)
	}
	if st.Mode&0o077 != 0 {
		return os.Chmod(dir, 0o700)
	}
	return nil
}

// Close gives the directory up. Live mounts stay, and with them the memory of
// a store in memory; without any, it is given back with all layers.
func (s *Store) Close() error {
	var errs []error
	if s.root != nil {
		errs = append(errs, s.root.Close())
	}
	// An overlay does not keep the tmpfs mounted, which lies below it.
	inUse := s.memory != nil && s.anyLive()
	for _, f := range s.locks {
		errs = append(errs, f.Close())
	}
	if s.memory != nil && !inUse {
		errs = append(errs, s.memory.unmount(s.dir))
	}
	return errors.Join(errs...)
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// recover brings the directory to the state that this process accounts for.
func (s *Store) recover() error {
	if err := emptyDir(s.path(stagingDir)); err != nil {
		return err
	}
	if err := s.recoverMounts(); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.path(layersDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if s.layers[e.Name()] != nil {
			continue
		}
		if s.keep && !s.images && s.complete(e.Name()) {
			if s.layers[e.Name()], err = s.readLayer(e.Name()); err != nil {
				return err
			}
			continue
		}
		if err := s.bury(e.Name()); err != nil {
			return err
		}
	}
	return s.sweep()
}

// complete reports whether the layer directory was committed in this boot.
func (s *Store) complete(name string) bool {
	b, err := os.ReadFile(s.path(layersDir, name, bootFile))
	return err == nil && bytes.Equal(b, s.boot)
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := destroy(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
