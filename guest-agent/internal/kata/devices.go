package kata

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
)

// maxDevices bounds the disks of one container.
const maxDevices = 64

// plugged finds the disks that a container gets as devices (kata-agent 2.13), and
// returns their numbers in the guest by the path that they have in the container.
// The policy has allowed that the container gets them; which disks of the guest
// are not for containers is decided here: all that the guest uses itself.
func (s *Server) plugged(ctx context.Context, list []*agent.Device) (map[string]device.Block, error) {
	if len(list) > maxDevices {
		return nil, invalidf("%d devices, at most %d are possible", len(list), maxDevices)
	}
	found := map[string]device.Block{}
	for _, d := range list {
		if d.GetContainerPath() == "" || found[d.GetContainerPath()].Name != "" {
			return nil, invalidf("a device without a path of its own in the container")
		}
		if s.devices == nil {
			return nil, invalidf("this agent looks for no devices")
		}
		where := d.GetVmPath()
		if d.GetType() == device.SCSI || d.GetType() == device.PCI && d.GetId() != "" {
			where = d.GetId()
		}
		a, err := device.ParseAddress(d.GetType(), where)
		if err != nil {
			return nil, err
		}
		b, err := s.devices.Find(ctx, a)
		if err == nil {
			err = b.Unused()
		}
		if err != nil {
			return nil, err
		}
		found[d.GetContainerPath()] = b
	}
	return found, nil
}

// renumber puts the numbers that devices have in the guest into a spec that the
// host has made with its own: in the list of devices, and in the rules of the
// cgroup for them.
//
// A disk in the spec that was not plugged in has a number of the host's alone: in
// the guest that may be the guest's own disk, so it is refused.
func renumber(in *agent.Linux, found map[string]device.Block) error {
	for _, d := range in.GetDevices() {
		if d.GetType() == "b" && found[d.GetPath()].Name == "" {
			return invalidf("device %.128q is no disk that was plugged in", d.GetPath())
		}
	}
	type number struct {
		kind         string
		major, minor int64
	}
	changed := map[number]device.Block{}
	for path, b := range found {
		hits := 0
		for _, d := range in.GetDevices() {
			if d.GetPath() != path {
				continue
			}
			hits++
			if d.GetType() != "b" {
				return invalidf("device %.128q is no disk", path)
			}
			changed[number{d.Type, d.Major, d.Minor}] = b
			d.Major, d.Minor = int64(b.Major), int64(b.Minor)
		}
		if hits != 1 {
			return invalidf("the spec has device %.128q %d times", path, hits)
		}
	}
	for _, r := range in.GetResources().GetDevices() {
		if b, ok := changed[number{r.GetType(), r.GetMajor(), r.GetMinor()}]; ok {
			r.Major, r.Minor = int64(b.Major), int64(b.Minor)
		}
	}
	return nil
}
