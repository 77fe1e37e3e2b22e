package kata

import (
	"context"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/device"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
)

// maxDevices bounds the devices of one container.
const maxDevices = 64

// Devices finds what the host plugs in; package device does the work.
type Devices interface {
	sandbox.Devices
	// FindFunction waits for a function that is passed through, and returns its
	// address in the guest.
	FindFunction(ctx context.Context, f device.Function) (address string, err error)
}

// plugged are the devices of one container.
type plugged struct {
	disks map[string]device.Block // by their paths in the container
	moved map[string]string       // addresses in the guest of PCI functions, by those on the host
	keys  map[string]sandbox.Key  // of the volumes on some of the disks, by the same paths
}

// plugged finds the devices that a container gets (kata-agent 2.13). The policy
// has allowed that it gets them; which disks of the guest are not for containers is
// decided here: all that the guest uses itself. Disks with keys are not opened yet.
func (s *Server) plugged(ctx context.Context, list []*agent.Device, keys map[string]sandbox.Key) (plugged, error) {
	p := plugged{map[string]device.Block{}, map[string]string{}, keys}
	if len(list) > maxDevices {
		return p, invalidf("%d devices, at most %d are possible", len(list), maxDevices)
	}
	if len(list) > 0 && s.devices == nil {
		return p, invalidf("this agent looks for no devices")
	}
	for _, d := range list {
		var err error
		if d.GetType() == device.Passed {
			err = s.addFunctions(ctx, p, d)
		} else {
			err = s.addDisk(ctx, p, d)
		}
		if err != nil {
			return p, err
		}
	}
	for path := range keys {
		if p.disks[path].Name == "" || path == trustedPath {
			return p, invalidf("there is no disk for the volume that should be %.128q", path)
		}
	}
	return p, nil
}

// open opens the volumes on disks that have keys: the container gets what shows
// them in the clear.
func (p plugged) open(ctx context.Context, v *sandbox.Volumes) error {
	for path, key := range p.keys {
		shown, err := v.OpenDisk(ctx, p.disks[path], key)
		if err != nil {
			return err
		}
		p.disks[path] = shown
	}
	return nil
}

func (s *Server) addDisk(ctx context.Context, p plugged, d *agent.Device) error {
	if d.GetContainerPath() == "" || p.disks[d.GetContainerPath()].Name != "" {
		return invalidf("a device without a path of its own in the container")
	}
	where := d.GetVmPath()
	if d.GetType() == device.SCSI || d.GetType() == device.PCI && d.GetId() != "" {
		where = d.GetId()
	}
	a, err := device.ParseAddress(d.GetType(), where)
	if err != nil {
		return err
	}
	b, err := s.devices.Find(ctx, a)
	if err != nil {
		return err
	}
	if d.GetContainerPath() == trustedPath {
		p.disks[trustedPath] = b
		return s.trusted.use(ctx, b)
	}
	if _, keyed := p.keys[d.GetContainerPath()]; !keyed { // another container may have opened it
		if err := b.Unused(); err != nil {
			return err
		}
	}
	p.disks[d.GetContainerPath()] = b
	return nil
}

// addFunctions waits for functions that are passed through together. The container
// has no node of them: what their driver offers is for the guest's image to give.
func (s *Server) addFunctions(ctx context.Context, p plugged, d *agent.Device) error {
	if len(d.GetOptions()) == 0 || len(d.GetOptions())+len(p.moved) > maxDevices {
		return invalidf("%d functions are passed through, at least 1 and at most %d are possible", len(d.GetOptions()), maxDevices)
	}
	for _, option := range d.GetOptions() {
		f, err := device.ParseFunction(option)
		if err != nil {
			return err
		}
		if p.moved[f.Host] != "" {
			return invalidf("function %s is passed through twice", f.Host)
		}
		if p.moved[f.Host], err = s.devices.FindFunction(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// readdress puts addresses of the guest into the variables in which device plugins
// tell those of the host.
func (p plugged) readdress(process *agent.Process) error {
	if len(p.moved) == 0 {
		return nil
	}
	for i, e := range process.GetEnv() {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "PCIDEVICE_") || strings.HasSuffix(name, "_INFO") {
			continue
		}
		addresses := strings.Split(value, ",")
		for j, host := range addresses {
			if addresses[j] = p.moved[host]; addresses[j] == "" {
				return invalidf("variable %.64s names a function that was not passed through", name)
			}
		}
		process.Env[i] = name + "=" + strings.Join(addresses, ",")
	}
	return nil
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
