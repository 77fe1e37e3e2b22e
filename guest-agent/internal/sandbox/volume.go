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

// lasting are the flags of a mount that a change of its options never takes away.
var lasting = map[int64]uintptr{
	unix.ST_NOSUID: unix.MS_NOSUID, unix.ST_NODEV: unix.MS_NODEV, unix.ST_NOEXEC: unix.MS_NOEXEC, unix.ST_RDONLY: unix.MS_RDONLY,
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
	for is, keep := range lasting {
		if now.Flags&is != 0 {
			o.flags |= keep
		}
	}
	return unix.Mount("", fdPath(dir), "", unix.MS_REMOUNT|o.flags, o.data)
}
