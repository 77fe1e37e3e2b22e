package genpolicy

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// mount is a volume in a container.
type mount struct {
	Destination string `json:"destination"`
	Kind        string `json:"kind"`
	Volume      string `json:"volume,omitempty"`
	Readonly    bool   `json:"readonly"`
	Key         *Key   `json:"key,omitempty"`
}

// Kinds of mounts.
const (
	kindCopied    = "copied"    // files of Kubernetes, which the host copies in
	kindMemory    = "memory"    // an emptyDir in the guest's memory
	kindDisk      = "disk"      // an emptyDir on the guest's disk, or encrypted on one of the host's
	kindEncrypted = "encrypted" // on a disk of the host's, under a key of the owner's
	kindHost      = "host"      // what the host likes
)

// Key says how an encrypted volume is opened.
type Key struct {
	// Location is a kbs:// URI or a sealed secret.
	Location string `json:"key"`
	// Format makes a new volume on a disk that is empty. A host that brings an empty
	// disk in place of the volume then gets a new one, without what was on it.
	Format bool `json:"format"`
}

// ParseKey reads LOCATION or LOCATION,format.
func ParseKey(text string) (Key, error) {
	location, format := strings.CutSuffix(text, ",format")
	if !strings.HasPrefix(location, "kbs://") && !strings.HasPrefix(location, "sealed.") {
		return Key{}, fmt.Errorf("the key %.64q is neither a kbs:// URI nor a sealed secret", location)
	}
	return Key{location, format}, nil
}

// trustedStore is where a container has the disk for images, which the agent
// encrypts and takes for itself (kata-agent 2.11).
const trustedStore = "/dev/trusted_store"

var volumeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// find returns the volume of a name.
func (p *pod) find(name string) (volume, error) {
	i := slices.IndexFunc(p.Volumes, func(v volume) bool { return v.Name == name })
	if i < 0 || !volumeName.MatchString(name) {
		return volume{}, fmt.Errorf("there is no volume %q", name)
	}
	return p.Volumes[i], nil
}

func (p *pod) mounts(out *containerData, c container, o Options) error {
	token := p.AutomountToken == nil || *p.AutomountToken
	for _, m := range c.VolumeMounts {
		v, err := p.find(m.Name)
		if err != nil {
			return err
		}
		if !path.IsAbs(m.MountPath) {
			return fmt.Errorf("volume %s: its mount path is not absolute", m.Name)
		}
		item := mount{Destination: path.Clean(m.MountPath), Readonly: m.ReadOnly}
		if err := item.of(v, m, o); err != nil {
			return fmt.Errorf("volume %s: %w", m.Name, err)
		}
		token = token && item.Destination != tokenPath
		out.Mounts = append(out.Mounts, item)
	}
	if token {
		out.Files = append(out.Files, tokenPath)
	}
	return nil
}

// of completes the mount from its volume.
func (item *mount) of(v volume, m volumeMount, o Options) error {
	switch {
	case v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil:
		item.Kind = kindCopied
		return nil
	case v.EmptyDir != nil && m.SubPath != "":
		return errors.New("subPath of an emptyDir is not supported")
	case v.EmptyDir != nil && v.EmptyDir.Medium == "Memory":
		item.Kind, item.Volume = kindMemory, m.Name
		return nil
	case v.EmptyDir != nil && v.EmptyDir.Medium == "":
		item.Kind, item.Volume = kindDisk, m.Name
		return nil
	case v.EmptyDir != nil:
		return fmt.Errorf("medium %q is not supported", v.EmptyDir.Medium)
	}
	what, err := v.ofTheHost()
	if err != nil {
		return err
	}
	item.Volume = m.Name
	key, encrypted := o.Keys[m.Name]
	switch trusted := slices.Contains(o.InsecureHostVolumes, m.Name); {
	case encrypted && v.HostPath != nil:
		return errors.New("a directory of the host's is no disk that could be encrypted")
	case encrypted && m.SubPath != "":
		return errors.New("subPath of an encrypted volume is not supported: who resolves it is the host, which cannot read the volume")
	case encrypted:
		item.Kind, item.Key = kindEncrypted, &key
	case trusted:
		item.Kind = kindHost
	default:
		return fmt.Errorf("%s: the host reads it, chooses what is in it and can change it at any time. "+
			"Name the key under which it is encrypted (--encrypted-volume %s=kbs:///...), or trust the host with it (--insecure-host-volume %s)", what, m.Name, m.Name)
	}
	return nil
}

// ofTheHost says what a volume is whose bytes are the host's.
func (v volume) ofTheHost() (string, error) {
	switch {
	case v.Claim != nil:
		return "it is a persistent volume", nil
	case v.Ephemeral != nil:
		return "it is a volume that is provisioned for the pod", nil
	case v.CSI != nil:
		return "it is a volume of a storage driver's", nil
	case v.HostPath == nil:
		return "", errors.New("its kind is not known")
	}
	const guests = "it is a %s of the node's, which a guest has not"
	for _, own := range []string{"/dev", "/proc", "/sys"} { // runtimes take these for the guest's own
		if p := path.Clean(v.HostPath.Path); p == own || strings.HasPrefix(p, own+"/") {
			return "", fmt.Errorf(guests, "directory "+own)
		}
	}
	switch v.HostPath.Type {
	case "Socket", "CharDevice", "BlockDevice":
		return "", fmt.Errorf(guests, v.HostPath.Type)
	}
	return "it is a directory or a file of the host's", nil
}

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
		case o.Keys[d.Name] != Key{}:
			return fmt.Errorf("volume %s: a volume in block mode is not opened by a key; mount it as a filesystem", d.Name)
		case !slices.Contains(o.InsecureHostDevices, d.Name):
			return fmt.Errorf("volume %s: it is a disk of the host's, in the clear: the host reads it and can change it at any time (--insecure-host-device %s allows that)", d.Name, d.Name)
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

// checkOptions refuses options that name what the pod does not have: a word
// with a typing mistake in it would else be believed to protect, or to allow.
func (p *pod) checkOptions(o Options) error {
	volumes, devices, containers := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, v := range p.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range slices.Concat(p.InitContainers, p.Containers) {
		containers[c.Name] = true
		for _, d := range c.VolumeDevices {
			devices[d.Name] = true
		}
		for name := range c.Resources.Limits {
			devices[name] = true
		}
	}
	for name := range o.Keys {
		if slices.Contains(o.InsecureHostVolumes, name) {
			return fmt.Errorf("volume %s is to be encrypted, and to be the host's", name)
		}
	}
	for option, names := range map[string]struct {
		there map[string]bool
		named []string
	}{
		"--insecure-host-volume": {volumes, o.InsecureHostVolumes},
		"--insecure-host-device": {devices, o.InsecureHostDevices},
		"--insecure-privileged":  {containers, o.InsecurePrivileged},
	} {
		for _, name := range names.named {
			if !names.there[name] {
				return fmt.Errorf("%s %s: the pod has nothing of this name", option, name)
			}
		}
	}
	for name := range o.Keys {
		if !volumes[name] {
			return fmt.Errorf("--encrypted-volume %s: the pod has no volume of this name", name)
		}
	}
	return nil
}
