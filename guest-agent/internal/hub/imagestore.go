package hub

import (
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
)

// imageStore is where images are kept, and what pulls them there.
type imageStore struct {
	store  *store.Store
	puller *pull.Puller
}

func openImages(dir string, options []store.Option, cfg pull.Config) (*imageStore, error) {
	// Layers that no container uses must not fill the disk that containers write to.
	st, err := store.Open(dir, append([]store.Option{store.WithShare(50)}, options...)...)
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	cfg.Store = st
	p, err := pull.New(cfg)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return &imageStore{st, p}, nil
}

// MoveImages keeps images in another directory from now on. It fails while one
// is used.
func (h *Hub) MoveImages(dir string, options ...store.Option) error {
	next, err := h.open(dir, options...)
	if err != nil {
		return fault.New(fault.Internal, err)
	}
	old := next
	if !h.bundles.whileEmpty(func() { old = h.images.Swap(next) }) {
		err = fault.Newf(fault.Conflict, "images are kept elsewhere already")
	}
	return errors.Join(err, old.store.Close())
}
