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
)

const (
	layersDir  = "layers"
	stagingDir = "staging"
	mountsDir  = "mounts"
	lockFile   = "lock"
	fsDir      = "fs"
	bootFile   = "boot"

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
	dir  string
	boot []byte
	lock *os.File
	root *os.File // for short names in mount options

	recovered []*Mount // set by Open

	mu   sync.Mutex
	refs map[string]int // by directory name
}

// Open takes possession of dir: it is made if it is missing, refused if others
// can write to it, and has mode 0700 afterwards. It removes what earlier processes
// left behind: staging directories, layers of another boot, layers that no
// live mount uses.
func Open(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: abs, refs: map[string]int{}}
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
	if s.lock, err = os.OpenFile(filepath.Join(s.dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("in use by another process: %w", err)
	}
	if s.root, err = os.Open(s.dir); err != nil {
		return err
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

// Close gives the directory up. Live mounts stay.
func (s *Store) Close() error {
	var errs []error
	for _, f := range []*os.File{s.root, s.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
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
		if s.refs[e.Name()] == 0 {
			if err := s.removeLayer(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// complete reports whether the layer directory was committed in this boot.
func (s *Store) complete(name string) bool {
	b, err := os.ReadFile(s.path(layersDir, name, bootFile))
	return err == nil && bytes.Equal(b, s.boot)
}

// removeLayer moves the layer out of sight first, so that a half-removed layer
// is never found under its name.
func (s *Store) removeLayer(name string) error {
	grave, err := os.MkdirTemp(s.path(stagingDir), "gone-")
	if err != nil {
		return err
	}
	if err := os.Rename(s.path(layersDir, name), filepath.Join(grave, "layer")); err != nil {
		_ = os.Remove(grave)
		return err
	}
	return os.RemoveAll(grave)
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// GC removes every layer that nothing refers to and returns their number.
func (s *Store) GC() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.path(layersDir))
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		if s.refs[e.Name()] > 0 {
			continue
		}
		if err := s.removeLayer(e.Name()); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
