package policy

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// keysRule says with which keys volumes of a container are opened, by the mount
// points of their storages:
//
//	volume_keys[s.mount_point] := {"key": "kbs:///default/volume/data", "format": false} if some s in input.storages
//
// Rego decides which storages a host may bring; the key is what makes a disk the
// owner's volume. So the host has no part in naming it.
const keysRule = "volume_keys"

// VolumeKey is what opens a volume.
type VolumeKey struct {
	Location string // a kbs:// URI or a sealed secret
	Format   bool   // make a new volume on a disk that is empty
}

// VolumeKeys returns the keys of the volumes of a request that was allowed, by the
// mount points of their storages. The error is a *fault.Fault.
func (e *Engine) VolumeKeys(ctx context.Context, m proto.Message) (map[string]VolumeKey, error) {
	w := e.world.Load()
	if w.program.keys == nil {
		return nil, nil
	}
	keys, err := w.volumeKeys(ctx, m)
	if err != nil {
		return nil, fault.New(fault.PolicyError, fmt.Errorf("%s: %w", keysRule, err))
	}
	return keys, nil
}

func (w *world) volumeKeys(ctx context.Context, m proto.Message) (map[string]VolumeKey, error) {
	input, err := document(m, w.program.bytes)
	if err != nil {
		return nil, err
	}
	value, _, err := w.program.value(ctx, w.program.keys, input, w.notes)
	if err != nil || value == nil {
		return nil, err
	}
	byPlace, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("it is no object")
	}
	keys := map[string]VolumeKey{}
	for place, raw := range byPlace {
		if keys[place], err = parseKey(raw); err != nil {
			return nil, fmt.Errorf("%.256q: %w", place, err)
		}
	}
	return keys, nil
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
