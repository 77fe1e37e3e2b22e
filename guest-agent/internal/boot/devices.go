package boot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// idle are modules that only serve a device, or a kind of processor: where there
// is none when the machine starts, they have time. They are loaded all the same,
// for what is plugged later, because nothing can be loaded then. What a bus hangs
// on has to be listed before what hangs on it.
var idle = map[string]device{
	"virtio_blk":   virtio("00000002"),
	"failover":     virtio("00000001"),
	"net_failover": virtio("00000001"),
	"virtio_net":   virtio("00000001"),
	"scsi_common":  virtio("00000008"),
	"scsi_mod":     virtio("00000008"),
	"virtio_scsi":  virtio("00000008"),
	"sd_mod":       virtio("00000008"),
	"virtio_rng":   virtio("00000004"),
	"sev_guest":    {"sys/bus/platform/devices/*/modalias", "platform:sev-guest"},
	"tdx_guest":    {"proc/cpuinfo", " tdx_guest"},

	"vsock":                             virtio("00000013"),
	"vmw_vsock_virtio_transport_common": virtio("00000013"),
	"vmw_vsock_virtio_transport":        virtio("00000013"),
}

// device is told by a file of the kernel's with a text in it.
type device struct{ pattern, text string }

// virtio is a device of the virtio standard, section 5, by its number in
// hexadecimal, as the kernel writes it (scripts/mod/file2alias.c).
func virtio(number string) device {
	return device{"sys/bus/virtio/devices/*/modalias", "virtio:d" + number}
}

// present looks below a root. What cannot be read counts as there: a driver too
// many does no harm.
func (d device) present(root string) bool {
	files, err := filepath.Glob(filepath.Join(root, d.pattern))
	if err != nil {
		return true
	}
	for _, file := range files {
		text, err := readSmall(file)
		if errors.Is(err, os.ErrNotExist) { // it went meanwhile
			continue
		}
		if err != nil || strings.Contains(text, d.text) {
			return true
		}
	}
	return false
}

// atOnce says whether a module is needed before the agent serves.
func atOnce(m module) bool {
	d, ok := idle[m.name()]
	return !ok || d.present("/")
}

func always(module) bool { return true }
