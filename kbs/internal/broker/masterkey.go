package broker

import (
	"context"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
)

// openKeys opens the master keys that the configuration names: the first one
// makes new keys, and the former ones open what is still under them.
func (s *shared) openKeys(ctx context.Context) (*kek.Set, error) {
	c := s.cfg.MasterKey
	var holders []kek.Holder
	for _, h := range append([]config.KeyHolder{c.KeyHolder}, c.Former...) {
		holder, err := s.holder(h)
		if err != nil {
			return nil, err
		}
		holders = append(holders, holder)
	}
	return kek.OpenSet(ctx, s.store, s.Now, holders...)
}

func (s *shared) holder(h config.KeyHolder) (kek.Holder, error) {
	switch h.Type {
	case config.MasterKeyFile:
		return kek.Files(h.FilePath(s.cfg.StateDir)), nil
	default:
		return nil, fmt.Errorf("master_key: there is no holder %q", h.Type)
	}
}
