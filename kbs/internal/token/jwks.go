package token

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// KeySet returns every key whose tokens are accepted, and the one that will
// sign next.
func (k *Keys) KeySet(ctx context.Context) (api.KeySet, error) {
	s, err := k.fresh(ctx, refreshEvery)
	if err != nil {
		return api.KeySet{}, err
	}
	set := api.KeySet{Keys: []api.PublicKey{}}
	now := k.cfg.Now()
	for _, e := range s.index.Keys {
		if !s.accepts(e.ID, now) {
			continue
		}
		j, err := s.keys[e.ID].published()
		if err != nil {
			return api.KeySet{}, err
		}
		set.Keys = append(set.Keys, j)
	}
	return set, nil
}
