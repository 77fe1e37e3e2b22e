package kata

import (
	"context"
	"slices"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
)

// trustedPath is where the field's pods have a disk that is for images
// (kata-agent 2.11). No container sees it: the agent encrypts it under a random key
// and keeps there what it pulls from then on, this container's image first.
const trustedPath = "/dev/trusted_store"

// trustedStore remembers which disk that is.
type trustedStore struct {
	keep func(ctx context.Context, b device.Block) error // nil without

	mu   sync.Mutex // held while a disk is made ready: who comes meanwhile needs it, too
	disk string     // its name; empty for none
}

// use takes a disk for images. Several containers of a pod may have the same one.
func (t *trustedStore) use(ctx context.Context, b device.Block) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.keep == nil:
		return invalidf("this agent keeps no images on disks of %s", trustedPath)
	case t.disk == b.Name:
		return nil
	case t.disk != "":
		return invalidf("images are kept on another disk already")
	}
	if err := b.Unused(); err != nil {
		return err
	}
	if err := t.keep(ctx, b); err != nil {
		return err
	}
	t.disk = b.Name
	return nil
}

// withoutStore takes that disk out of a spec, and the right to open it.
func withoutStore(in *agent.Linux, disks map[string]device.Block) {
	b, ok := disks[trustedPath]
	if !ok {
		return
	}
	in.Devices = slices.DeleteFunc(in.Devices, func(d *agent.LinuxDevice) bool { return d.GetPath() == trustedPath })
	if in.Resources != nil {
		in.Resources.Devices = slices.DeleteFunc(in.Resources.Devices, func(r *agent.LinuxDeviceCgroup) bool {
			return r.GetAllow() && r.GetType() == "b" && r.GetMajor() == int64(b.Major) && r.GetMinor() == int64(b.Minor)
		})
	}
}
