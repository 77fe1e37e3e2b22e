package genpolicy

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// mount is a volume in a container.
type mount struct {
	Destination string `json:"destination"`
	Kind        string `json:"kind"`
	Volume      string `json:"volume,omitempty"`
	Readonly    bool   `json:"readonly"`
	Key         *Key   `json:"key,omitempty"`
	// Own says that the agent makes the volume itself, see parts.rego.
	Own   bool   `json:"own,omitempty"`
	Path  string `json:"path,omitempty"`  // of the part of an own one; empty for all of it
	Group *int64 `json:"group,omitempty"` // that has an own one
}

// Kinds of mounts.
const (
	kindCopied    = "copied"    // files of Kubernetes, which the host copies in
	kindMemory    = "memory"    // an emptyDir in the guest's memory
	kindDisk      = "disk"      // an emptyDir on the guest's disk, or encrypted on one of the host's
	kindHuge      = "huge"      // an emptyDir in the guest's large pages
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

var volumeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// find returns the volume of a name.
func (p *pod) find(name string) (volume, error) {
	i := slices.IndexFunc(p.Volumes, func(v volume) bool { return v.Name == name })
	if i < 0 || !volumeName.MatchString(name) {
		return volume{}, fmt.Errorf("there is no volume %q", name)
	}
	return p.Volumes[i], nil
}

func (p *pod) mounts(out *containerData, c container, values map[string]*string, o Options) error {
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
		if v.EmptyDir != nil {
			err = p.emptyDir(&item, v, m, values)
		} else {
			err = item.of(v, m, o)
		}
		if err != nil {
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

// of completes the mount from a volume that is no emptyDir. Of files that the host
// copies in it has chosen the part already.
func (item *mount) of(v volume, m volumeMount, o Options) error {
	if v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil {
		item.Kind = kindCopied
		return nil
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
	case encrypted && m.part():
		return errors.New("subPath of an encrypted volume is not supported: who resolves it is the host, which cannot read the volume, and runtimes then bring no disk. Mount the volume as a whole")
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
		if slices.Contains(o.InsecureHostVolumes, name) || slices.Contains(o.InsecureHostDevices, name) {
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
