package resource

import (
	"context"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Records are the built-in back end's, for the walk to another master key.
type Records struct{}

var _ kek.Room = Records{}

// Prefix implements kek.Room.
func (Records) Prefix() string { return prefixHead }

// Rewrap implements kek.Room. The head is sealed anew, because the record gets
// another version; what users see of it stays as it is.
func (Records) Rewrap(ctx context.Context, keys kek.Rewrapper, r store.Record) ([]byte, bool, error) {
	path := r.Key[len(prefixHead):]
	s, err := readHead(r)
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", kek.ErrUnwrap, err)
	}
	changed := false
	for i, k := range s.keys {
		wrapped, moved, err := keys.Rewrap(ctx, k.wrapped, boundKey(path))
		if err != nil {
			return nil, false, err
		}
		s.keys[i].wrapped, changed = wrapped, changed || moved
	}
	if !changed {
		return nil, false, nil
	}
	wrapped, ok := s.key(s.current().Version)
	if !ok {
		return nil, false, fmt.Errorf("%w: a data key is gone", kek.ErrUnwrap)
	}
	current, err := openKey(ctx, keys, path, wrapped)
	if err != nil {
		return nil, false, err
	}
	if err := current.checkHead(s.record, path, int64(s.at)); err != nil {
		return nil, false, fmt.Errorf("%w: %w", kek.ErrUnwrap, err)
	}
	s.tag = current.sealHead(s.text, path, int64(s.at+1))
	return s.marshal(), true, nil
}
