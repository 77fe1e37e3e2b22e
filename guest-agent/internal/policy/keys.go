package policy

import (
	"errors"
	"fmt"
)

// keysRule says with which keys volumes of a container are opened, by the mount
// points of their storages:
//
//	volume_keys[s.mount_point] := {"key": "kbs:///default/volume/data", "format": false} if some s in input.storages
//
// Rego decides which storages a host may bring; the key is what makes a disk the
// owner's volume. So the host has no part in naming it.
const keysRule = "volume_keys"

// deviceKeysRule says the same of disks that a container has as devices, by their
// paths in the container:
//
//	device_keys[d.container_path] := {"key": "kbs:///default/volume/raw"} if some d in input.devices
const deviceKeysRule = "device_keys"

// VolumeKey is what opens a volume.
type VolumeKey struct {
	Location string // a kbs:// URI or a sealed secret
	Format   bool   // make a new volume on a disk that is empty
}

// keys reads the answer of a rule: an object of keys.
func keys(value any) (map[string]VolumeKey, error) {
	members, ok := value.(map[string]any)
	if !ok {
		return nil, errNoObject
	}
	found := map[string]VolumeKey{}
	var err error
	for name, raw := range members {
		if found[name], err = parseKey(raw); err != nil {
			return nil, fmt.Errorf("%.256q: %w", name, err)
		}
	}
	return found, nil
}

func parseKey(raw any) (VolumeKey, error) {
	members, ok := raw.(map[string]any)
	if !ok {
		return VolumeKey{}, errors.New(`want an object with "key" and "format"`)
	}
	var k VolumeKey
	for name, value := range members {
		switch v := value.(type) {
		case string:
			ok = name == "key" && v != ""
			k.Location = v
		case bool:
			ok = name == "format"
			k.Format = v
		default:
			ok = false
		}
		if !ok {
			return VolumeKey{}, fmt.Errorf("%q is not what it should be", name)
		}
	}
	if k.Location == "" {
		return VolumeKey{}, errors.New("no key is named")
	}
	return k, nil
}
