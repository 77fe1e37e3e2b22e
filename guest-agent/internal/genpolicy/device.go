package genpolicy

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// trustedStore is where a container has the disk for images, which the agent
// encrypts and takes for itself (kata-agent 2.11).
const trustedStore = "/dev/trusted_store"

// disks are the volumes that a container gets as devices.
func (p *pod) disks(out *containerData, c container, o Options) error {
	for _, d := range c.VolumeDevices {
		v, err := p.find(d.Name)
		if err != nil {
			return err
		}
		at := path.Clean(d.DevicePath)
		switch {
		case v.Claim == nil && v.Ephemeral == nil:
			return fmt.Errorf("volume %s: it cannot be a device", d.Name)
		case !path.IsAbs(d.DevicePath) || slices.Contains(out.Devices, at):
			return fmt.Errorf("volume %s: it needs an absolute device path of its own", d.Name)
		case at == trustedStore: // the container never sees it
			if o.Keys[d.Name] != (Key{}) {
				return fmt.Errorf("volume %s: what lies at %s is encrypted under a random key", d.Name, trustedStore)
			}
		case o.Keys[d.Name] != Key{}:
			if out.DeviceKeys == nil {
				out.DeviceKeys = map[string]Key{}
			}
			out.DeviceKeys[at] = o.Keys[d.Name]
		case !slices.Contains(o.InsecureHostDevices, d.Name):
			return fmt.Errorf("volume %s: it is a disk of the host's, in the clear: the host reads it and can change it at any time. "+
				"Name the key under which it is encrypted (--encrypted-volume %s=kbs:///...), or trust the host with it (--insecure-host-device %s)", d.Name, d.Name, d.Name)
		}
		out.Devices = append(out.Devices, at)
	}
	slices.Sort(out.Devices)
	return nil
}

// maxPassed bounds the devices of one resource.
const maxPassed = 64

// passed counts the devices of a node's device plugins that are passed through to
// the guest, whose kernel drives them.
func passed(c container, o Options) (int, error) {
	total := 0
	for name, value := range c.Resources.Limits {
		if !strings.Contains(name, "/") {
			continue // processors, memory, storage, large pages
		}
		n, err := strconv.Atoi(fmt.Sprint(value))
		switch {
		case err != nil || n < 0 || n > maxPassed:
			return 0, fmt.Errorf("resource %s: %v is no number of devices", name, value)
		case n > 0 && !slices.Contains(o.InsecureHostDevices, name):
			return 0, fmt.Errorf("resource %s: it is a device of the host's choice: nobody has attested it (--insecure-host-device %s allows that)", name, name)
		}
		total += n
	}
	for name := range c.Resources.Requests {
		if _, ok := c.Resources.Limits[name]; strings.Contains(name, "/") && !ok {
			return 0, fmt.Errorf("resource %s: it is requested without a limit", name)
		}
	}
	return total, nil
}
