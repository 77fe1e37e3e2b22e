package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// Usage is how full a volume is.
type Usage struct {
	Bytes, BytesFree, BytesAvailable uint64 // available: without what root keeps for itself
	Inodes, InodesFree               uint64
}

// volume opens the directory of a volume.
func (s *Sandbox) volume(path string) (*os.File, error) {
	rel, err := s.rel(path)
	if err != nil {
		return nil, err
	}
	f, err := s.openFile(rel)
	if err != nil {
		if _, invalid := errors.AsType[*InvalidError](err); invalid {
			return nil, err
		}
		return nil, invalidf("volume %q cannot be used: %v", path, err)
	}
	return f, nil
}

// Usage tells how full the volume is that has this path in the guest.
func (s *Sandbox) Usage(path string) (Usage, error) {
	f, err := s.volume(path)
	if err != nil {
		return Usage{}, err
	}
	defer func() { _ = f.Close() }()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return Usage{}, fmt.Errorf("volume %q: %w", path, err)
	}
	unit := uint64(st.Frsize) //nolint:gosec // the kernel's
	return Usage{
		Bytes: st.Blocks * unit, BytesFree: st.Bfree * unit, BytesAvailable: st.Bavail * unit,
		Inodes: st.Files, InodesFree: st.Ffree,
	}, nil
}

// lasting are the flags of a mount that a change of its options never takes away,
// and that another mount of the same has too, with their names in an OCI spec.
var lasting = []struct {
	is   int64
	flag uintptr
	name string
}{
	{unix.ST_NOSUID, unix.MS_NOSUID, "nosuid"}, {unix.ST_NODEV, unix.MS_NODEV, "nodev"},
	{unix.ST_NOEXEC, unix.MS_NOEXEC, "noexec"}, {unix.ST_RDONLY, unix.MS_RDONLY, "ro"},
}

// Lasting returns the options that whatever lies at a path has, and that a bind mount
// of it must be given anew: one with any option of its own has no others (mount(2),
// MS_REMOUNT and MS_BIND).
func Lasting(path string) (options []string, err error) {
	var now unix.Statfs_t
	if err := unix.Statfs(path, &now); err != nil {
		return nil, fmt.Errorf("options of %s: %w", path, err)
	}
	for _, l := range lasting {
		if now.Flags&l.is != 0 {
			options = append(options, l.name)
		}
	}
	return options, nil
}

// lastingFlags are those of what is mounted at an open directory or file.
func lastingFlags(f *os.File) (flags uintptr, err error) {
	var now unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &now); err != nil {
		return 0, err
	}
	for _, l := range lasting {
		if now.Flags&l.is != 0 {
			flags |= l.flag
		}
	}
	return flags, nil
}

// Remount gives volumes in memory other options, above all another size. Only
// what a storage has mounted is touched.
func (s *Sandbox) Remount(list []*agent.Storage) error {
	for _, st := range list {
		if err := s.remount(st); err != nil {
			return fmt.Errorf("storage %q: %w", st.GetMountPoint(), err)
		}
	}
	return nil
}

func (s *Sandbox) remount(st *agent.Storage) error {
	if st.GetDriver() != driverEphemeral || st.GetFstype() != "tmpfs" {
		return nil // the field skips what is not in memory
	}
	rel, err := s.rel(st.GetMountPoint())
	if err != nil {
		return err
	}
	if !s.storages.has(rel, driverEphemeral) {
		return invalidf("no volume in memory is mounted there")
	}
	o, err := parseOptions(st.GetOptions(), false)
	if err != nil {
		return err
	}
	dir, err := s.openFile(rel)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	var now unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &now); err != nil {
		return err
	}
	if now.Type != unix.TMPFS_MAGIC {
		return invalidf("no volume in memory is mounted there")
	}
	keep, err := lastingFlags(dir)
	if err != nil {
		return err
	}
	return unix.Mount("", fdPath(dir), "", unix.MS_REMOUNT|o.flags|keep, o.data)
}
