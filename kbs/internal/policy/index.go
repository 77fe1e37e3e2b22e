package policy

import (
	"context"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// index is an immutable picture of which versions are in force and in the
// shadow, with the reference values that were asked for. A request reads two
// small records to learn that its picture is still true; only after a change
// are the heads of all policies read again. So a thousand policies cost a
// request what one does, and a change made through any replica bites
// everywhere at once.
type index struct {
	generation store.Version
	parts      map[string]parts // by kind/id
	values     *values          // nil: the references are asked each time
}

// parts are the versions that are evaluated, with the digests of their texts.
type parts struct {
	enforce, shadow       int64
	enforceSum, shadowSum string
}

func indexName(kind Kind, id string) string { return string(kind) + "/" + id }

// current returns an index that is true now.
func (e *Engine) current(ctx context.Context) (*index, error) {
	var now index
	err := e.docs.st.View(ctx, func(tx store.Tx) error {
		now = index{}
		if known := e.index.Load(); known != nil {
			now = *known
		}
		if err := now.refresh(tx); err != nil {
			return err
		}
		return e.refreshValues(tx, &now)
	})
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	if known := e.index.Load(); known != nil && known.generation == now.generation && known.values == now.values {
		return known, nil
	}
	e.index.Store(&now)
	return &now, nil
}

// refresh reads the heads again, if there is a new generation.
func (x *index) refresh(tx store.Tx) error {
	r, err := tx.Get(keyGeneration)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if x.parts != nil && x.generation == r.Version {
		return nil
	}
	x.generation = r.Version
	x.parts, err = readParts(tx)
	return err
}

// refreshValues starts with no values, if there is a new epoch.
func (e *Engine) refreshValues(tx store.Tx, x *index) error {
	refs, ok := e.refs.(Kept)
	if !ok {
		x.values = nil
		return nil
	}
	epoch, err := refs.Epoch(tx)
	if err != nil {
		return err
	}
	if x.values == nil || x.values.epoch != epoch {
		x.values = newValues(epoch, refs, e.docs.now)
	}
	return nil
}

// lookups are for one evaluation, or for two that must see the same values.
func (e *Engine) lookups(x *index) *lookups {
	if x.values == nil {
		return newLookups(e.refs)
	}
	return newLookups(x.values)
}

func readParts(tx store.Tx) (map[string]parts, error) {
	out := map[string]parts{}
	err := each(tx, keyHead, func(r store.Record) error {
		kind, id, err := splitHead(r.Key)
		if err != nil {
			return err
		}
		h, err := decodeHead(r)
		if err == nil && (h.Enforce != 0 || h.Shadow != 0) {
			out[indexName(kind, id)] = parts{h.Enforce, h.Shadow, h.About.SHA256, h.ShadowSum}
		}
		return err
	})
	return out, err
}

// resource returns the name of the policy that decides about a path of a
// plugin, and of the one whose shadow is asked: the most specific that has a
// version in that part. Empty names mean none.
func (x *index) resource(plugin string, path []string) (enforce, shadow string) {
	for _, id := range candidates(plugin, path) {
		p := x.parts[indexName(Resource, id)]
		if shadow == "" && p.shadow != 0 {
			shadow = id
		}
		if p.enforce != 0 {
			return id, shadow
		}
	}
	return "", shadow
}
