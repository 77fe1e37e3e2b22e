package device

import (
	"regexp"
	"strconv"
	"strings"
)

// Kinds of addresses, by the names of the runtimes' drivers.
const (
	PCI    = "blk"     // a virtio disk by its PCI path, or its node
	MMIO   = "mmioblk" // a virtio disk by its node
	SCSI   = "scsi"    // a disk by target and unit
	NVDIMM = "nvdimm"  // persistent memory by its node
)

// Kinds lists them.
func Kinds() []string { return []string{PCI, MMIO, SCSI, NVDIMM} }

// Passed is the kind of devices that are passed through to the guest, whose kernel
// drives them.
const Passed = "vfio-pci-gk"

// An Address is where a device is plugged in. One of its parts is set.
type Address struct {
	node string // the name of the disk
	path []slot // from the root bus on
	scsi string // "target:unit"
}

// whyNot says of kinds that runtimes know why they are not here.
var whyNot = map[string]string{
	"blk-ccw":      ofS390x,
	"vfio-ap":      ofS390x,
	"vfio-ap-cold": ofS390x,
	"vfio-pci":     "a container that drives a device by itself also says where in the guest's memory the device writes; only a driver of the guest's kernel (vfio-pci-gk) does that for it",
}

const ofS390x = "it is a kind of s390x, for which this agent is not built"

func unsupported(kind string) error {
	if why := whyNot[kind]; why != "" {
		return invalidf("devices of kind %s are not supported: %s", kind, why)
	}
	return invalidf("devices of kind %.32q are not supported", kind)
}

// slot is a place on a PCI bus.
type slot struct{ device, function uint8 }

// pciRoot is the first device number that names the root bus instead: of a
// machine with several (kata-agent 2.13).
const pciRoot = 0x20

// maxBridges bounds the length of a PCI path.
const maxBridges = 8

// nodes are the disks that a host plugs in, by kind.
var nodes = map[string]*regexp.Regexp{
	PCI:    regexp.MustCompile(`^/dev/((?:vd|sd|xvd)[a-z]{1,3}|nvme[0-9]{1,3}n[0-9]{1,3})$`),
	MMIO:   regexp.MustCompile(`^/dev/(vd[a-z]{1,3})$`),
	NVDIMM: regexp.MustCompile(`^/dev/(pmem[0-9]{1,3})$`),
}

var scsiAddress = regexp.MustCompile(`^(0|[1-9][0-9]{0,4}):(0|[1-9][0-9]{0,4})$`)

// ParseAddress reads what a runtime writes: a PCI path such as "02/00.0", a node
// such as "/dev/vda", or a SCSI address such as "0:1".
func ParseAddress(kind, text string) (Address, error) {
	if pattern := nodes[kind]; pattern != nil {
		if m := pattern.FindStringSubmatch(text); m != nil {
			return Address{node: m[1]}, nil
		}
	}
	switch {
	case kind == SCSI && scsiAddress.MatchString(text):
		return Address{scsi: text}, nil
	case kind == PCI:
		if path, ok := parsePath(text); ok {
			return Address{path: path}, nil
		}
	case nodes[kind] == nil && kind != SCSI:
		return Address{}, unsupported(kind)
	}
	return Address{}, invalidf("%.64q is no address of a device of kind %s", text, kind)
}

// parsePath reads two hexadecimal digits for each bridge and for the device, each
// with a function where that is not 0.
func parsePath(text string) ([]slot, bool) {
	var path []slot
	for part := range strings.SplitSeq(text, "/") {
		number, function, hasFunction := strings.Cut(part, ".")
		d, err := strconv.ParseUint(number, 16, 8)
		if err != nil || len(number) != 2 || len(path) == maxBridges {
			return nil, false
		}
		s := slot{device: uint8(d)}
		if hasFunction {
			f, err := strconv.ParseUint(function, 16, 3)
			if err != nil || len(function) != 1 {
				return nil, false
			}
			s.function = uint8(f)
		}
		path = append(path, s)
	}
	for i, s := range path {
		if s.device >= pciRoot && (i > 0 || len(path) < 3 || s.function != 0) {
			return nil, false
		}
	}
	return path, true
}

// String is the form that ParseAddress reads.
func (a Address) String() string {
	switch {
	case a.node != "":
		return "/dev/" + a.node
	case a.scsi != "":
		return a.scsi
	}
	var parts []string
	for _, s := range a.path {
		part := hex2(s.device)
		if s.function != 0 {
			part += "." + strconv.FormatUint(uint64(s.function), 16)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "/")
}

func hex2(n uint8) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[n>>4], digits[n&15]})
}
