package boot

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/image/dm"
)

// verity is the root that the command line names by its hash, in the kernel's
// own words (Documentation/admin-guide/device-mapper/dm-init.rst), which are also
// those of the Kata runtime (kata-agent 4.2):
//
//	dm-mod.create="NAME,UUID,MINOR,ro,0 SECTORS verity PARAMETERS" root=/dev/dm-0
//
// A kernel with CONFIG_DM_INIT does that before there is an init. For others the
// initramfs holds the agent and modules, and this does it.
type verity struct {
	name   string
	target dm.Target
	fstype string // rootfstype=; empty for erofs
}

var errVerity = errors.New(`want "NAME,[UUID],[MINOR],ro,0 SECTORS verity PARAMETERS": one read-only verity device`)

func parseVerity(value string) (*verity, error) {
	fields := strings.SplitN(value, ",", 5)
	if len(fields) != 5 || fields[0] == "" || fields[3] != "ro" || strings.ContainsAny(fields[4], ",;") {
		return nil, errVerity
	}
	start, table, _ := strings.Cut(fields[4], " ")
	length, table, _ := strings.Cut(table, " ")
	kind, params, _ := strings.Cut(table, " ")
	sectors, err := strconv.ParseInt(length, 10, 64)
	if start != "0" || kind != "verity" || err != nil || sectors <= 0 {
		return nil, errVerity
	}
	return &verity{name: fields[0], target: dm.Target{Kind: kind, Sectors: sectors, Params: params, ReadOnly: true}}, nil
}

// open returns the path of the device, of which every block is checked when it
// is read.
func (v *verity) open() (string, error) {
	d, err := dm.Open(v.name, v.target)
	if err != nil {
		return "", fmt.Errorf("the root: %w", err)
	}
	return d.Path(), nil
}
