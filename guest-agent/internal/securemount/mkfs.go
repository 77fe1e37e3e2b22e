package securemount

import (
	"regexp"
	"slices"
	"strings"
)

// Filesystem is what a volume is formatted with and mounted as.
type Filesystem string

// The filesystems.
const (
	NoFilesystem Filesystem = "" // the bare device
	Ext4         Filesystem = "ext4"
	XFS          Filesystem = "xfs"
)

func parseFilesystem(text string) (Filesystem, error) {
	switch f := Filesystem(text); f {
	case "":
		return Ext4, nil
	case Ext4, XFS:
		return f, nil
	}
	return "", invalid("filesystemType must be ext4 or xfs, not %.64q", text)
}

func (f Filesystem) program() string { return "mkfs." + string(f) }

// mkfsFlags are the flags of the programs that may be set from outside: those
// that shape the filesystem. Others name files, devices and places.
var mkfsFlags = map[Filesystem][]string{
	Ext4: {"-O", "-m", "-i", "-I", "-b", "-N", "-E", "-L", "-g", "-J"},
	XFS:  {"-b", "-i", "-m", "-n", "-s", "-L"},
}

var (
	mkfsValue = regexp.MustCompile(`^[A-Za-z0-9^_=,.-]+$`)
	// Values that lead out of the volume, or make it larger or smaller than it is.
	mkfsRefused = []string{"offset=", "device=", "name=", "file=", "size=0", "external", "journal_dev"}
)

const (
	maxMkfs      = 32
	maxMkfsValue = 128 // bytes
)

// arguments returns those of the program, with the node still to be appended.
func (f Filesystem) arguments(options []string, integrity bool) ([]string, error) {
	if f == NoFilesystem {
		return nil, nil
	}
	if len(options) > maxMkfs {
		return nil, invalid("%d words in mkfsOpts", len(options))
	}
	args := []string{"-q", "-F"}
	if f == XFS {
		args = []string{"-q", "-f", "-K"}
	}
	var extended []string
	for i := 0; i < len(options); i += 2 {
		flag := options[i]
		if !slices.Contains(mkfsFlags[f], flag) {
			return nil, invalid("%.64q of mkfsOpts is not supported for %s", flag, f)
		}
		if i+1 == len(options) || len(options[i+1]) > maxMkfsValue || !mkfsValue.MatchString(options[i+1]) || strings.HasPrefix(options[i+1], "-") ||
			slices.ContainsFunc(mkfsRefused, func(bad string) bool { return strings.Contains(options[i+1], bad) }) {
			return nil, invalid("the value of %s in mkfsOpts is not supported", flag)
		}
		if flag == "-E" {
			extended = append(extended, options[i+1])
			continue
		}
		args = append(args, flag, options[i+1])
	}
	if f != Ext4 {
		return args, nil
	}
	// Of a device with integrity a sector can be read only after it was written,
	// so nothing may be left for later.
	if integrity && !strings.Contains(strings.Join(extended, ","), "lazy_itable_init") {
		extended = append(extended, "lazy_itable_init=0")
	}
	return append(args, "-E", strings.Join(append(extended, "nodiscard"), ",")), nil
}
