package broker

import (
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// resources mounts the back ends of one tenant: the built-in one at the root,
// unless the configuration puts another there, and those that it names.
func (s *shared) resources(st store.Store, keys kek.Wrapper) (*resource.Mounts, error) {
	builtin := resource.NewBuiltin(resource.Config{Store: st, Keys: keys, Now: s.Now, Keep: s.cfg.Resources.KeepVersions})
	mounts, root := []resource.Mount{}, false
	for _, b := range s.cfg.ResourceBackends {
		m := resource.Mount{Name: b.Name, Prefix: b.Prefix, ReadOnly: b.ReadOnly}
		switch b.Type {
		case config.BackendBuiltin:
			m.Backend = builtin
		default:
			return nil, fmt.Errorf("resource_backends: there is no type %q", b.Type)
		}
		root = root || m.Prefix == ""
		mounts = append(mounts, m)
	}
	if !root {
		mounts = append(mounts, resource.Mount{Backend: builtin})
	}
	return resource.NewMounts(mounts...)
}
