package broker

import (
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/pkcs11"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	tokenvalues "github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource/pkcs11"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource/vaultkv"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
)

// openBackends opens the back ends that are not the broker's own store, once
// for all: they are clients of something that is there without us.
func (s *shared) openBackends() error {
	s.foreign = map[string]resource.Backend{}
	for _, b := range s.cfg.ResourceBackends {
		switch b.Type {
		case config.BackendVaultKV:
			client, err := s.vault(*b.Vault)
			if err != nil {
				return fmt.Errorf("resource_backends: %s: %w", b.Name, err)
			}
			s.foreign[b.Name] = vaultkv.New(client, b.Mount, b.Field)
		case config.BackendPKCS11:
			t, err := s.openToken(b.Socket)
			if err != nil {
				return fmt.Errorf("resource_backends: %s: %w", b.Name, err)
			}
			s.foreign[b.Name] = tokenvalues.New(t)
		}
	}
	return nil
}

// openToken prepares to ask kbs-pkcs11, and asks nothing yet: it may come and
// go while the broker serves.
func (s *shared) openToken(socket string) (*pkcs11.Token, error) {
	t, err := pkcs11.Open(socket)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, t.Close)
	return t, nil
}

// resources mounts the back ends of one tenant: the built-in one at the root,
// unless the configuration puts another there, and those that it names for
// this tenant.
func (s *shared) resources(name string, st store.Store, keys kek.Wrapper) (*resource.Mounts, error) {
	builtin := resource.NewBuiltin(resource.Config{Store: st, Keys: keys, Now: s.Now, Keep: s.cfg.Resources.KeepVersions})
	mounts, root := []resource.Mount{}, false
	for _, b := range s.cfg.ResourceBackends {
		m := resource.Mount{Name: b.Name, Prefix: b.Prefix, ReadOnly: b.ReadOnly, Backend: builtin}
		if b.Type != config.BackendBuiltin {
			if owner := b.Tenant; owner != name && (owner != "" || name != tenant.Default) {
				continue
			}
			m.Backend = s.foreign[b.Name]
		}
		root = root || m.Prefix == ""
		mounts = append(mounts, m)
	}
	if !root {
		mounts = append(mounts, resource.Mount{Backend: builtin})
	}
	return resource.NewMounts(mounts...)
}
