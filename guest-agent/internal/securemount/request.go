package securemount

import (
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// A Device is a block device, by its node or, if that is empty, its number.
type Device struct {
	Path         string
	Major, Minor uint32
}

// Volume says what to mount where.
type Volume struct {
	Device Device
	// Key locates the key of a persistent volume: a kbs:// URI, a sealed secret or
	// file:///PATH. Empty makes an ephemeral volume, whose key is random.
	Key string
	// Format makes a new volume on an empty device. Without it the device must
	// have a persistent one. A device that is not empty is never formatted.
	Format bool
	// Integrity must be true for persistent volumes.
	Integrity   bool
	Filesystem  Filesystem
	MkfsOptions []string // see parseMkfs
	MountPoint  string   // for NoFilesystem, of a symbolic link to the device
	MountFlags  uintptr  // of mount(2), beside MS_NOATIME
	// Name is that of the mapping; empty for a random one.
	Name string
}

// Names of options and values (guest-protocol 13.1). Their other spellings are
// those of the field's documents.
const (
	typeBlock = "block-device"
	typeOSS   = "alibaba-cloud-oss"
)

const maxOptions = 64

var (
	mapperName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
	deviceNumber = regexp.MustCompile(`^([0-9]{1,5}):([0-9]{1,8})$`)
)

func invalid(format string, args ...any) error {
	return fault.Newf(fault.InvalidRequest, format, args...)
}

// Parse reads the fields of a SecureMountRequest. What it does not know it
// refuses: an option that is ignored may be one that protects. Errors are
// *fault.Fault.
func Parse(volumeType string, options map[string]string, flags []string, mountPoint string) (Volume, error) {
	switch normal(volumeType) {
	case "blockdevice":
	case normal(typeOSS), "aliyun", "alibabacloud", "oss":
		return Volume{}, fault.Newf(fault.Unsupported, "volumes of type %s are not built: object storage is mounted by programs that this guest has not", typeOSS)
	default:
		return Volume{}, fault.Newf(fault.Unsupported, "there are no volumes of type %.64q, only %s", volumeType, typeBlock)
	}
	if len(options) > maxOptions {
		return Volume{}, invalid("%d options", len(options))
	}
	v := Volume{Integrity: true, Filesystem: Ext4, MountPoint: mountPoint}
	var said stated
	seen := map[string]bool{}
	for name, value := range options {
		n := normal(name)
		if seen[n] {
			return Volume{}, invalid("option %q is given twice", name)
		}
		seen[n] = true
		if err := v.set(&said, n, value); err != nil {
			return Volume{}, err
		}
	}
	if err := said.check(&v); err != nil {
		return Volume{}, err
	}
	for _, f := range flags {
		flag, ok := mountFlags[f]
		if !ok {
			return Volume{}, invalid("mount flag %.64q is not supported", f)
		}
		v.MountFlags |= flag
	}
	return v, v.check()
}

// normal makes encryptType, encryption_type and encryption-type comparable.
func normal(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
}

var mountFlags = map[string]uintptr{
	"rw": 0, "defaults": 0, "noatime": unix.MS_NOATIME, "ro": unix.MS_RDONLY,
	"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "sync": unix.MS_SYNCHRONOUS,
}

// stated is what a request says beside the volume itself.
type stated struct{ source, encryption, target, filesystem, mkfs, number, path string }

func (v *Volume) set(s *stated, option, value string) error {
	switch option {
	case "deviceid":
		s.number = value
	case "devicepath":
		s.path = value
	case "sourcetype":
		s.source = normal(value)
	case "targettype":
		s.target = normal(value)
	case "encryptiontype", "encrypttype":
		if s.encryption != "" {
			return invalid("the type of encryption is given twice")
		}
		s.encryption = normal(value)
	case "filesystemtype":
		s.filesystem = normal(value)
	case "mkfsopts":
		s.mkfs = value
	case "key":
		if value == "" {
			return invalid("the key is empty; without the option it is random")
		}
		v.Key = value
	case "dataintegrity":
		b, err := strconv.ParseBool(value)
		if err != nil {
			return invalid("dataIntegrity is neither true nor false")
		}
		v.Integrity = b
	case "mappername":
		v.Name = value
	default:
		return invalid("option %.64q is not known", option)
	}
	return nil
}

// check completes the volume from what depends on several options.
func (s stated) check(v *Volume) (err error) {
	switch {
	case s.encryption == "zfs":
		return fault.Newf(fault.Unsupported, "volumes of type zfs are not built")
	case s.encryption != "luks2" && s.encryption != "luks":
		return invalid("encryptionType must be luks2, not %.64q", s.encryption)
	}
	switch s.source {
	case "empty":
		v.Format = true
	case "encrypted":
	default:
		return invalid("sourceType must be empty or encrypted, not %.64q", s.source)
	}
	switch s.target {
	case "filesystem":
		if v.Filesystem, err = parseFilesystem(s.filesystem); err != nil {
			return err
		}
		v.MkfsOptions = strings.Fields(s.mkfs)
	case "device":
		if s.filesystem != "" || s.mkfs != "" {
			return invalid("a target device has no filesystem")
		}
		v.Filesystem = NoFilesystem
	default:
		return invalid("targetType must be device or fileSystem, not %.64q", s.target)
	}
	v.Device.Path = s.path
	if s.number != "" { // wins, as in the field
		v.Device, err = ParseNumber(s.number)
	}
	return err
}

// ParseNumber reads MAJOR:MINOR.
func ParseNumber(text string) (Device, error) {
	m := deviceNumber.FindStringSubmatch(text)
	if m == nil {
		return Device{}, invalid("deviceId %.64q is not MAJOR:MINOR", text)
	}
	major, _ := strconv.ParseUint(m[1], 10, 32) // as many digits as fit
	minor, _ := strconv.ParseUint(m[2], 10, 32)
	return Device{Major: uint32(major), Minor: uint32(minor)}, nil
}

// check refuses what is unsafe or contradicts itself, whoever made the volume.
func (v Volume) check() error {
	switch {
	case v.Device == Device{}:
		return invalid("neither a device nor its number is named")
	case v.Device.Path != "" && !filepath.IsAbs(v.Device.Path):
		return invalid("the device's path is not absolute")
	case !filepath.IsAbs(v.MountPoint) || filepath.Clean(v.MountPoint) != v.MountPoint || v.MountPoint == "/":
		return invalid("the mount point is not a clean absolute path")
	case v.Key == "" && !v.Format:
		return invalid("a volume that is there already has a key: it must be named")
	case v.Key != "" && !v.Integrity:
		return invalid("a persistent volume without integrity is not served: whoever holds the disk could alter it")
	case v.Name != "" && !mapperName.MatchString(v.Name):
		return invalid("mapperName %.64q is not a plain name", v.Name)
	case !v.Format && len(v.MkfsOptions) > 0:
		return invalid("mkfsOpts are for a volume that is made")
	}
	_, err := v.Filesystem.arguments(v.MkfsOptions, v.Integrity)
	return err
}
