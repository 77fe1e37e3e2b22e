package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
)

// Devices finds the disks that the host has plugged in; package device does the
// work.
type Devices interface {
	Find(ctx context.Context, a device.Address) (device.Block, error)
	Partition(ctx context.Context, b device.Block, number int) (device.Block, error)
}

// Encrypted mounts disks of the host's so that it cannot read what is on them.
type Encrypted interface {
	// MountOn makes a new filesystem under a key that nobody but the kernel has,
	// and mounts it on a directory. It returns what Unmount takes.
	MountOn(ctx context.Context, node string, dir *os.File) (path string, err error)
	// MountKey opens a volume that lasts by its key, and mounts its filesystem.
	MountKey(ctx context.Context, node string, key Key, m Mount, dir *os.File) (path string, err error)
	// OpenKey opens such a volume, and makes link a link to the device that shows it
	// in the clear. Unmount takes the link.
	OpenKey(ctx context.Context, node string, key Key, link string) error
	Unmount(ctx context.Context, path string) error
}

// Key says how the volume on a disk is opened, whatever the host says of the disk.
type Key struct {
	Location string // of the key: a kbs:// URI or a sealed secret
	Format   bool   // make a new volume if the disk is empty
}

// Mount is how a filesystem is mounted.
type Mount struct {
	Filesystem string
	Flags      uintptr // of mount(2)
}

// filesystems are what a disk of the host's may hold. The kernel reads them with
// code that was not written for hostile disks, so the fewer the better.
var filesystems = []string{"ext4", "xfs", "erofs"}

// disk is a storage on a disk, taken apart.
type disk struct {
	address   device.Address
	partition int // 0 for the whole disk
	fstype    string
	o         options
	verity    *checked // nil without
	encrypted bool     // under a random key, formatted anew
	key       *Key     // of the volume that is on it; nil without
	create    bool     // a filesystem, if there is none
	group     int      // -1 for none
	onChange  bool     // the group is given only where the top has another
}

// parseDisk reads a storage of one of the block drivers, less the options that
// concern its layer.
func parseDisk(st *agent.Storage, own map[string][]string, rest []string) (disk, error) {
	d := disk{fstype: st.GetFstype()}
	var err error
	if d.address, err = device.ParseAddress(st.GetDriver(), st.GetSource()); err != nil {
		return d, err
	}
	if d.o, err = parseOptions(rest, false); err != nil {
		return d, err
	}
	if d.group, err = group(st, d.o); err != nil {
		return d, err
	}
	d.onChange = st.GetFsGroup().GetGroupChangePolicy() != 0
	if d.verity, err = parseVerity(own); err != nil {
		return d, err
	}
	if err := d.parsePartition(own); err != nil {
		return d, err
	}
	if err := d.parseDriverOptions(st.GetDriverOptions()); err != nil {
		return d, err
	}
	for name := range own {
		if !slices.Contains(knownOptions, name) {
			return d, invalidf("storage option %s%.64s is not supported", kataOption, name)
		}
	}
	switch {
	case d.encrypted:
	case !slices.Contains(filesystems, d.fstype):
		return d, invalidf("filesystem %.32q of a disk is not supported", d.fstype)
	case strings.Contains(d.o.data, "/"):
		return d, invalidf("options %.128q name something outside of the disk", d.o.data)
	case d.verity != nil || d.fstype == "erofs":
		d.o.flags |= unix.MS_RDONLY
	}
	return d, nil
}

// knownOptions are what is read of the options for the agent.
var knownOptions = []string{
	"dmverity-enabled", "dmverity.roothash", "dmverity.salt", "dmverity.hashoffset", "dmverity.blocksize", "dmverity.hashsize", "dmverity.no-superblock",
	"gpt-partitioned", "partition-number", optionLayers, optionUpper, optionLower, optionMkdir,
}

func (d *disk) parsePartition(own map[string][]string) error {
	number := own["partition-number"]
	if len(number) == 0 {
		return nil
	}
	const most = 128 // of a GPT
	n, err := strconv.Atoi(number[0])
	if err != nil || len(number) > 1 || n < 1 || n > most {
		return invalidf("%.16q is no number of a partition", number[0])
	}
	d.partition = n
	return nil
}

// parseDriverOptions reads those of the block drivers (kata-agent 2.10).
func (d *disk) parseDriverOptions(list []string) error {
	for _, o := range list {
		switch o {
		case "encryption_key=ephemeral":
			d.encrypted = true
		case "create_filesystem":
			d.create = true
		default:
			return invalidf("driver option %.64q is not supported", o)
		}
	}
	if d.encrypted && d.verity != nil || d.create && d.verity != nil {
		return invalidf("a disk that is checked by its hashes cannot be made anew")
	}
	return nil
}

// block mounts a disk of the host's.
func (s *Sandbox) block(ctx context.Context, t target, d disk) (undo, error) {
	dir, err := t.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	return s.mountDisk(ctx, t, d, dir)
}

func (s *Sandbox) mountDisk(ctx context.Context, t target, d disk, dir *os.File) (undo, error) {
	b, err := s.find(ctx, d)
	if err != nil {
		return nil, err
	}
	if d.encrypted || d.key != nil {
		return s.encrypt(ctx, t, d, b, dir)
	}
	if d.create {
		if err := createFilesystem(ctx, b.Path, d.fstype); err != nil {
			return nil, err
		}
	}
	node, closeNode := b.Path, func() error { return nil }
	if d.verity != nil {
		mapped, err := d.verity.open(b.Path, "vouchsafe-"+b.Name)
		if err != nil {
			return nil, fmt.Errorf("check %s by dm-verity: %w", b.Name, err)
		}
		node, closeNode = mapped.Path(), mapped.Close
	}
	path, err := mountOn(dir, node, d.fstype, d.o.flags|t.flags(), d.o.data)
	if err != nil {
		return nil, errors.Join(err, closeNode())
	}
	undo := func(ctx context.Context) error {
		if err := t.unmounter(path)(ctx); err != nil {
			return err
		}
		return closeNode()
	}
	if d.o.flags&unix.MS_RDONLY == 0 {
		if err := ownTree(ctx, path, d.group, d.onChange); err != nil {
			return nil, errors.Join(err, undo(context.WithoutCancel(ctx)))
		}
	}
	return undo, nil
}

// find waits for the disk, which nothing else may use.
func (s *Sandbox) find(ctx context.Context, d disk) (device.Block, error) {
	if s.cfg.Devices == nil {
		return device.Block{}, invalidf("this agent looks for no disks")
	}
	b, err := s.cfg.Devices.Find(ctx, d.address)
	if err == nil && d.partition > 0 {
		b, err = s.cfg.Devices.Partition(ctx, b, d.partition)
	}
	if err == nil {
		err = b.Unused()
	}
	return b, err
}

// encrypt mounts a disk under a random key, an emptyDir on a disk, or under the
// key of the volume that is on it.
func (s *Sandbox) encrypt(ctx context.Context, t target, d disk, b device.Block, dir *os.File) (undo, error) {
	if s.cfg.Encrypted == nil {
		return nil, invalidf("this agent does not encrypt disks")
	}
	var path string
	var err error
	if d.key != nil {
		path, err = s.cfg.Encrypted.MountKey(ctx, b.Path, *d.key, Mount{d.fstype, d.o.flags | t.flags()}, dir)
	} else {
		path, err = s.cfg.Encrypted.MountOn(ctx, b.Path, dir)
	}
	if err != nil {
		return nil, err
	}
	undo := func(ctx context.Context) error {
		if err := s.cfg.Encrypted.Unmount(ctx, path); err != nil {
			return err
		}
		t.remove()
		return nil
	}
	if d.o.flags&unix.MS_RDONLY != 0 {
		return undo, nil
	}
	if err := ownTree(ctx, path, d.group, d.onChange); err != nil {
		return nil, errors.Join(err, undo(context.WithoutCancel(ctx)))
	}
	return undo, nil
}
