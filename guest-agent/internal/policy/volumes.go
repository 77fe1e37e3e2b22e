package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// Volumes is what a policy itself says of the volumes of a container. The host has
// no part in it.
type Volumes struct {
	Keys      map[string]VolumeKey // by the mount points of storages
	Devices   map[string]VolumeKey // by the paths of devices in the container
	EmptyDirs map[string]EmptyDir  // by the destinations of mounts
}

// emptyDirsRule says which volumes the agent makes and keeps itself, for as long as
// the pod lives, by where the container has them:
//
//	empty_dirs["/tmp"] := {"volume": "scratch", "kind": "disk", "path": "tmp"}
//
// The source that a request names for such a mount does not count. The kind "memory"
// is a filesystem of its own; a path is that of a part of the volume; a "group"
// owns it.
const emptyDirsRule = "empty_dirs"

// EmptyDir is a volume of the pod's own.
type EmptyDir struct {
	Volume string
	Path   string // of a part; empty for all of it
	Memory bool
	Group  int // -1 for none
}

var errNoObject = errors.New("it is no object")

// Volumes asks for the volumes of a request that was allowed, the policy that has
// allowed it, see [Hearing]. The error is a *fault.Fault.
func (e *Engine) Volumes(ctx context.Context, m proto.Message) (Volumes, error) {
	w := e.allowedBy(ctx)
	var v Volumes
	for _, ask := range []struct {
		name string
		rule *rule
		take func(value any) error
	}{
		{keysRule, w.program.keys, func(value any) (err error) { v.Keys, err = keys(value); return err }},
		{deviceKeysRule, w.program.deviceKeys, func(value any) (err error) { v.Devices, err = keys(value); return err }},
		{emptyDirsRule, w.program.emptyDirs, func(value any) (err error) { v.EmptyDirs, err = emptyDirs(value); return err }},
	} {
		if ask.rule == nil {
			continue
		}
		value, err := w.answer(ctx, ask.rule, m)
		if err == nil && value != nil {
			err = ask.take(value)
		}
		if err != nil {
			return Volumes{}, fault.New(fault.PolicyError, fmt.Errorf("%s: %w", ask.name, err))
		}
	}
	return v, nil
}

// answer is a rule's, whatever it says; nil for nothing.
func (w *world) answer(ctx context.Context, r *rule, m proto.Message) (any, error) {
	input, err := document(m, w.program.bytes)
	if err != nil {
		return nil, err
	}
	value, _, err := w.program.value(ctx, r, input, w.notes)
	return value, err
}

func emptyDirs(value any) (map[string]EmptyDir, error) {
	members, ok := value.(map[string]any)
	if !ok {
		return nil, errNoObject
	}
	found := map[string]EmptyDir{}
	var err error
	for at, raw := range members {
		if found[at], err = parseEmptyDir(raw); err != nil {
			return nil, fmt.Errorf("%.256q: %w", at, err)
		}
	}
	return found, nil
}

// parseEmptyDir takes no member that it does not know.
func parseEmptyDir(raw any) (EmptyDir, error) {
	d := EmptyDir{Group: -1}
	members, ok := raw.(map[string]any)
	if !ok {
		return d, errNoObject
	}
	for name, value := range members {
		ok := false
		switch name {
		case "volume":
			d.Volume, ok = value.(string)
		case "path":
			d.Path, ok = value.(string)
		case "kind":
			d.Memory, ok = value == "memory", value == "memory" || value == "disk"
		case "group":
			d.Group, ok = groupID(value)
		}
		if !ok {
			return d, fmt.Errorf("%q is not what it should be", name)
		}
	}
	if d.Volume == "" || members["kind"] == nil {
		return d, errors.New(`want an object with "volume" and "kind"`)
	}
	return d, nil
}

func groupID(value any) (int, bool) {
	number, ok := value.(json.Number)
	if !ok {
		return -1, false
	}
	n, err := number.Int64()
	return int(n), err == nil && n >= 0 && n <= math.MaxInt32
}
